// The layout of one row of activations that are quantized to int8: codes, scale, sum of all codes, sums of
// groups of codes. Rows are never a multiple of 4096 bytes apart: such rows share L1 sets and are read at
// less than half the speed. scale = max|x| / 127, code = round_half_even(x / scale) in [-127, 127]; an
// all-zero row has scale 0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::q8 {

inline constexpr size_t kGroup = 128;     // columns of a sum
inline constexpr size_t kFineGroup = 32;  // columns of a fine sum
inline constexpr size_t kColumnPad = 256;

constexpr size_t padded_columns(size_t columns) {
  return (columns + kColumnPad - 1) / kColumnPad * kColumnPad;
}
constexpr size_t groups(size_t columns) { return padded_columns(columns) / kGroup; }
constexpr size_t fine_groups(size_t columns) { return padded_columns(columns) / kFineGroup; }

// Byte offsets inside a row. Codes, int8 and zero beyond the last column, start at 0.
// float: the scale.
constexpr size_t scale_offset(size_t columns) { return padded_columns(columns); }
// int32: the sum of all codes.
constexpr size_t total_offset(size_t columns) { return scale_offset(columns) + 4; }
// int32[groups]: the sum of each group.
constexpr size_t sums_offset(size_t columns) { return scale_offset(columns) + 8; }
// int32[fine_groups]: the sum of each fine group.
constexpr size_t fine_sums_offset(size_t columns) { return sums_offset(columns) + 4 * groups(columns); }

constexpr size_t row_stride(size_t columns) {
  const size_t bytes = (fine_sums_offset(columns) + 4 * fine_groups(columns) + 63) / 64 * 64;
  return bytes % 4096 == 0 ? bytes + 64 : bytes;
}

}  // namespace tessera::q8
