// The ways a tensor can be stored, their names in files and on the command line, and the exact bytes each
// takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tessera {

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
enum class ActivationType : uint8_t { f32, int8 };

std::string_view scheme_name(Scheme scheme);                         // "w4a8-g128"
std::optional<Scheme> parse_scheme(std::string_view name);           // nothing for an unknown name
ActivationType activation_type(Scheme scheme);                       // int8 for w8a8, w4a8, w4a8-g128
size_t padded_columns(Scheme scheme, size_t columns);                // columns a stored matrix row really has
size_t panel_bytes(Scheme scheme, size_t columns);                   // bytes of one 16-row panel
double bits_per_weight(Scheme scheme, size_t rows, size_t columns);  // stored bits over rows * columns

// Exact stored bytes of a tensor of rank 1 or 2; nothing when the scheme does not fit the rank, a dimension
// is 0, or the product overflows 63 bits. shape is [length] or [rows, columns].
std::optional<uint64_t> stored_bytes(Scheme scheme, std::span<const uint64_t> shape);

// Offsets of the trailing per-row arrays inside a stored matrix.
struct RowTail {
  size_t scales;  // f32[round_up(rows,16)]: w8a8, w4a8, w4a8-g128
  size_t zeros;   // u8[round_up(rows,16)]: w4a8 only
};
RowTail row_tail(Scheme scheme, size_t rows, size_t columns);

}  // namespace tessera
