// The ways a tensor can be stored: their names in files and on the command line, the exact bytes each takes,
// and what its codes are. All of it comes from one table, a row for each scheme (scheme.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tessera {

// A scheme is the number of its row. Only those that the program speaks of by name have an enumerator; the
// others are found by parse_scheme or table_scheme.
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

// What the elements of a tensor are. Schemes that differ in their groups or activations share a kind, and
// with it the codec, the readers and the kernels: every table of these is asked by kind.
enum class CodeKind : uint8_t {
  f32,
  f16,
  bf16,
  row_bytes,    // 8 bits around 128, an f32 scale per row
  row_nibbles,  // 4 bits, an f32 scale and a u8 zero point per row
  progressive,  // 4 bits, a whole-number scale and offset per group, an f32 scale per row
  lut2,         // 2 bits, an index into the matrix's table of values; an f16 scale per group
  lut3,         // 3 bits
  lut4,         // 4 bits
  int4,         // 4 bits, an f16 scale and zero point per group
  int8,         // 8 bits around 128, an f16 scale per group
  int4m,        // 4 bits, an f16 scale and minimum per group
  int4k,        // 4 bits, u8 scale and minimum per group, f16 factors of these per block of 256 columns
  data,         // of vectors that are no weights
};

// What a linear layer with weights in this scheme multiplies with.
enum class ActivationType : uint8_t { f32, bf16, int8 };

// What a group of columns has beside its scale; a weight is scale * (value - zero point) + minimum.
enum class GroupOffset : uint8_t { none, zero_point, minimum };

// A row of the table. Matrices are stored as panels of 16 rows (tile_layout.h); arrays of the whole matrix
// follow the last panel.
struct SchemeFacts {
  std::string_view name;
  CodeKind kind;
  ActivationType activations;
  unsigned bits;     // of one element or code
  size_t group = 0;  // columns that share a scale within a row; 0 without groups
  GroupOffset offset = GroupOffset::none;
  // Stored columns are a multiple of column_pad; unit_bytes hold that many columns of 16 rows. 0 for schemes
  // that store no matrices.
  size_t column_pad = 0;
  size_t unit_bytes = 0;
  // Arrays after the panels, in this order. Rows are padded to whole panels.
  bool row_scales = false;  // f32[rows]
  bool row_zeros = false;   // u8[rows]
  bool table = false;       // f32[16]: the values that codes stand for
  // Largest magnitude of a stored code less its zero point, where a row's products are summed in int32 over
  // all columns; 0 where they are not.
  size_t largest_code = 0;
  size_t vector_bytes = 0;  // of an element of a plain vector; 0 for schemes that store no vectors

  bool stores_matrices() const { return column_pad != 0; }
  // Whether weights become codes with scales, and not floats.
  bool stores_codes() const { return stores_matrices() && (row_scales || group != 0); }
  // Whether every group has a float scale of its own: lut…, int4…, int8…, int4m… and int4k….
  bool group_scales() const { return stores_matrices() && group != 0 && !row_scales; }
};
const SchemeFacts& scheme_facts(Scheme scheme);  // of a scheme that exists

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
//
// Three more kinds with scales per group exist to hold what files of other tools hold, code by code:
//   int8-gG    scale * (code - 128), code 0 to 255; f16 scale. GGUF's Q8_0, GPTQ's symmetric 8 bits.
//   int4m-g32  scale * code + minimum; f16 both. GGUF's Q4_1.
//   int4k-g32  (d * s) * code - dmin * m, with f16 d and dmin per block of 256 columns and u8 s and m per
//              group, all products in f32, where they are exact. GGUF's Q4_K.
// Scales may be any finite f16 number everywhere, negative ones included.
Scheme table_scheme(const TableFormat& format);          // of a format within the limits above
std::optional<TableFormat> table_format(Scheme scheme);  // nothing for all other schemes

std::span<const Scheme> matrix_schemes();  // every scheme a matrix can have, in a fixed order
// Their names in the same order with a space between them: what --scheme takes. Ends with a null character.
const char* matrix_scheme_names();

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

// Where the arrays after the panels begin inside a stored matrix. An array that the scheme does not have
// takes no bytes.
struct RowTail {
  size_t scales;  // f32[round_up(rows,16)]
  size_t zeros;   // u8[round_up(rows,16)]
  size_t table;   // f32[16]
};
RowTail row_tail(Scheme scheme, size_t rows, size_t columns);

}  // namespace tessera
