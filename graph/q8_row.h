// One row of quantized activations in memory: codes, then scale, total and sums, padded so that rows
// never lie a multiple of 4096 bytes apart (such rows share L1 sets and fall to less than half the speed).
// Quantization: scale = max|x| / 127, code = round_half_even(x / scale) in [-127, 127]; an all-zero row has
// scale 0.
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

// Byte offsets inside a row; codes (int8, zero beyond the last column) start at 0.
constexpr size_t scale_offset(size_t columns) { return padded_columns(columns); }  // float
constexpr size_t total_offset(size_t columns) {
  return scale_offset(columns) + 4;
}  // int32: sum of all codes
constexpr size_t sums_offset(size_t columns) {
  return scale_offset(columns) + 8;
}  // int32[groups]: sum per group
constexpr size_t fine_sums_offset(size_t columns) {
  return sums_offset(columns) + 4 * groups(columns);
}  // int32[fine_groups]

constexpr size_t row_stride(size_t columns) {
  const size_t bytes = (fine_sums_offset(columns) + 4 * fine_groups(columns) + 63) / 64 * 64;
  return bytes % 4096 == 0 ? bytes + 64 : bytes;
}

}  // namespace tessera::q8
