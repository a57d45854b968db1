// The layout of one row of activations that are rounded to bfloat16 (half to even): values in the order of
// tile::bf16_position, zeros up to the padded length, then sums. Rows are never a multiple of 4096 bytes
// apart: such rows share L1 sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::bf16_row {

inline constexpr size_t kGroup = 32;  // columns of a sum
inline constexpr size_t kColumnPad = 256;

constexpr size_t padded_columns(size_t columns) {
  return (columns + kColumnPad - 1) / kColumnPad * kColumnPad;
}
constexpr size_t groups(size_t columns) { return padded_columns(columns) / kGroup; }

// Byte offset of float[groups]: sums of the rounded values of 32 columns.
constexpr size_t sums_offset(size_t columns) { return 2 * padded_columns(columns); }

constexpr size_t row_stride(size_t columns) {
  const size_t bytes = (sums_offset(columns) + 4 * groups(columns) + 63) / 64 * 64;
  return bytes % 4096 == 0 ? bytes + 64 : bytes;
}

}  // namespace tessera::bf16_row
