// Writes one q8 row (graph/q8_row.h) with a whole block, for all kernels that can produce quantized rows.
#pragma once

#include "backends/cuda/elementwise/block_reduce.h"
#include "backends/cuda/elementwise/row_quads.h"
#include "graph/q8_row.h"

namespace tessera::cuda {

inline constexpr uint32_t kInfinityBits = 0x7f800000u;
inline constexpr uint32_t kFineLanes = q8::kFineGroup / 4;  // lanes of 4 columns that share a fine sum

// values: as RowQuads, visited twice. Scale and codes equal the reference backend's: one float32 division
// each, rounded half to even. A row with a value that is not finite gets codes 0 and scale NaN.
template <class Values>
TESSERA_DEVICE void quantize_row(uint32_t columns, Global<std::byte> row, Shared<uint32_t> scratch,
                                 const Values& values) {
  static_assert(q8::kColumnPad == kRowPad && q8::kGroup == 4 * 32, "a warp's quads are a group");
  uint32_t largest = 0;  // bits of |value|, ordered as the values; infinity and NaN are largest
  values.each([&](uint32_t, const Quad& value) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t bits = float_bits(value.at[i]) & 0x7fffffffu;
      largest = bits > largest ? bits : largest;
    }
  });
  largest = block_max(largest, scratch);
  const bool finite = largest < kInfinityBits;
  const float scale = finite ? divide_rn(bits_float(largest), 127.0f) : bits_float(0x7fc00000u);
  const Global<uint32_t> codes = row.as<uint32_t>();
  const Global<int32_t> sums = row.as<int32_t>(q8::sums_offset(columns));
  const Global<int32_t> fine_sums = row.as<int32_t>(q8::fine_sums_offset(columns));
  int32_t total = 0;
  values.each([&](uint32_t quad, const Quad& value) {
    uint32_t word = 0;
    int32_t sum = 0;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      if (!(scale > 0)) break;
      float code = round_even(divide_rn(value.at[i], scale));
      code = code > 127.0f ? 127.0f : code;
      code = code < -127.0f ? -127.0f : code;
      const auto whole = static_cast<int32_t>(code);
      word |= (static_cast<uint32_t>(whole) & 255u) << (8 * i);
      sum += whole;
    }
    codes.store(quad, word);
    for (uint32_t mask = 1; mask < kFineLanes; mask *= 2)
      sum += static_cast<int32_t>(shuffle_xor(static_cast<uint32_t>(sum), mask));
    if (quad % kFineLanes == 0) fine_sums.store(quad / kFineLanes, sum);
    for (uint32_t mask = kFineLanes; mask < 32; mask *= 2)
      sum += static_cast<int32_t>(shuffle_xor(static_cast<uint32_t>(sum), mask));
    if (lane_index() == 0) {
      sums.store(quad / 32, sum);
      total += sum;
    }
  });
  total = static_cast<int32_t>(block_sum(static_cast<uint32_t>(total), scratch));
  if (thread_index() == 0) {
    row.as<float>(q8::scale_offset(columns)).store(0, scale);
    row.as<int32_t>(q8::total_offset(columns)).store(0, total);
  }
}

}  // namespace tessera::cuda
