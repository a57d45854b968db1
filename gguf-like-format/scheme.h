// The ways a tensor can be stored, their names in files and on the command line, and the exact bytes each
// takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tessera {

// Table schemes have no names here: they are made by table_scheme.
enum class Scheme : uint8_t {
  f32,        // vectors: plain floats; matrices: panels of f32
  f16,        // matrices only, panels of IEEE half
  bf16,       // matrices only, panels of bfloat16
  w8a8,       // u8 codes (w8 + 128) in byte panels, then f32 scale per padded row; int8 activations
  w4a8,       // u4 codes in panels, then f32 scale and u8 zero point per padded row; int8 activations
  w4a8_g128,  // u4 codes with s1 and a per 128 columns in panels, then f32 s0 per padded row; int8
              // activations
  u8,         // vectors of bytes (vocabularies and other data)
  u32,        // vectors of little-endian u32
};

// What a linear layer with weights in this scheme multiplies with.
enum class ActivationType : uint8_t { f32, bf16, int8 };

// Codes of 2 to 4 bits in panels, with an f16 scale for every row and group of columns. A weight is
// scale * table[code], with one table of 2^bits entries for the whole matrix ("lut4-g64"), or, with zero
// points, scale * (code - zero) with an f16 zero beside every scale ("int4-g128"; 4 bits only). The table is
// f32[16] after the last panel; entries beyond 2^bits are 0, all others bfloat16 values, or with int8
// activations ("lut4-g64-a8") multiples of 1/127 up to 1 in magnitude.
struct TableFormat {
  unsigned bits = 4;
  size_t group = 128;  // 32, 64, 128 or 256 columns
  bool zero_points = false;
  bool int8_activations = false;

  bool operator==(const TableFormat&) const = default;
};
Scheme table_scheme(const TableFormat& format);          // of a format within the limits above
std::optional<TableFormat> table_format(Scheme scheme);  // nothing for all other schemes
std::span<const Scheme> matrix_schemes();                // every scheme a matrix can have, in a fixed order

std::string_view scheme_name(Scheme scheme);                // "w4a8-g128"
std::optional<Scheme> parse_scheme(std::string_view name);  // nothing for an unknown name
ActivationType activation_type(Scheme scheme);              // int8 for w8a8, w4a8, w4a8-g128 and …-a8
// Whether weights are whole numbers times one f32 scale per row: w8a8, w4a8 and w4a8-g128.
bool has_row_scales(Scheme scheme);
// Columns up to which a row's whole-number sum fits its int32, whatever the stored codes; the largest size_t
// where no sum runs over more than a group.
size_t most_summed_columns(Scheme scheme);
size_t group_columns(Scheme scheme);  // columns that share a scale within a row; 0 without groups
size_t padded_columns(Scheme scheme, size_t columns);                // columns a stored matrix row really has
size_t panel_bytes(Scheme scheme, size_t columns);                   // bytes of one 16-row panel
double bits_per_weight(Scheme scheme, size_t rows, size_t columns);  // stored bits over rows * columns

// Exact stored bytes of a tensor of rank 1 or 2; nothing when the scheme does not fit the rank, a dimension
// is 0, or the product overflows 63 bits. shape is [length] or [rows, columns].
std::optional<uint64_t> stored_bytes(Scheme scheme, std::span<const uint64_t> shape);

// Offsets of what follows the panels inside a stored matrix.
struct RowTail {
  size_t scales;  // f32[round_up(rows,16)]: w8a8, w4a8, w4a8-g128
  size_t zeros;   // u8[round_up(rows,16)]: w4a8 only
  size_t table;   // f32[16]: table schemes without zero points
};
RowTail row_tail(Scheme scheme, size_t rows, size_t columns);

}  // namespace tessera
