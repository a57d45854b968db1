// What differs between the integer weight formats: how 16 bytes of a unit become operands of mma.m16n8k32,
// and what is subtracted from the sums. Operands are unsigned bytes, activations signed ones, so no code is
// ever offset.
#pragma once

#include "backends/cuda/gemm/linear.h"
#include "engine/graph/q8_row.h"

namespace tessera::cuda {

inline constexpr uint32_t kLowNibbles = 0x0f0f0f0fu;

// kSteps operands of 32 columns each come from one unit.
template <WeightFormat kFormat>
struct IntegerFormat;

template <>
struct IntegerFormat<WeightFormat::w8a8> {
  static constexpr WeightFormat kFormat = WeightFormat::w8a8;
  static constexpr uint32_t kSteps = 1;
  TESSERA_DEVICE static void expand(const Words4& words, uint32_t, uint32_t (&a)[kSteps][4]) {
    a[0][0] = words.x;
    a[0][1] = words.y;
    a[0][2] = words.z;
    a[0][3] = words.w;
  }
};

template <>
struct IntegerFormat<WeightFormat::w4a8> {
  static constexpr WeightFormat kFormat = WeightFormat::w4a8;
  static constexpr uint32_t kSteps = 2;
  TESSERA_DEVICE static void expand(const Words4& words, uint32_t, uint32_t (&a)[kSteps][4]) {
    a[0][0] = words.x & kLowNibbles;
    a[0][1] = words.y & kLowNibbles;
    a[0][2] = words.x >> 4 & kLowNibbles;
    a[0][3] = words.y >> 4 & kLowNibbles;
    a[1][0] = words.z & kLowNibbles;
    a[1][1] = words.w & kLowNibbles;
    a[1][2] = words.z >> 4 & kLowNibbles;
    a[1][3] = words.w >> 4 & kLowNibbles;
  }
};

// q * s1 + a within each byte: at most 255, so no byte carries into the next.
template <>
struct IntegerFormat<WeightFormat::w4a8_g128> {
  static constexpr WeightFormat kFormat = WeightFormat::w4a8_g128;
  static constexpr uint32_t kSteps = 2;
  // parameters: s1 and a of the lane's two rows, as layout::scale_byte has them.
  TESSERA_DEVICE static void expand(const Words4& words, uint32_t parameters, uint32_t (&a)[kSteps][4]) {
    const uint32_t scale[2] = {parameters & 255u, parameters >> 8 & 255u};
    const uint32_t offset[2] = {(parameters >> 16 & 255u) * 0x01010101u, (parameters >> 24) * 0x01010101u};
    const uint32_t from[2][2] = {{words.x, words.y}, {words.z, words.w}};
    for (uint32_t step = 0; step < kSteps; ++step) {
      for (uint32_t half = 0; half < 2; ++half) {
        a[step][half] = (from[step][half] & kLowNibbles) * scale[half] + offset[half];
        a[step][2 + half] = (from[step][half] >> 4 & kLowNibbles) * scale[half] + offset[half];
      }
    }
  }
};

// The operands of a lane for one unit of a panel.
template <class Format>
TESSERA_DEVICE void load_unit(Global<const std::byte> panel, uint32_t unit,
                              uint32_t (&a)[Format::kSteps][4]) {
  const Global<const std::byte> at = panel + layout::unit_byte(Format::kFormat, unit);
  const Words4 words = at.as<const Words4>()[lane_index()];
  uint32_t parameters = 0;
  if constexpr (Format::kFormat == WeightFormat::w4a8_g128) {
    const size_t group = layout::unit_byte(Format::kFormat, unit - unit % layout::kGroupUnits);
    parameters = panel.as<const uint32_t>(group + layout::kParameters)[lane_index() / 4];
  }
  Format::expand(words, parameters, a);
}

// From an exact sum of unsigned codes to the result for (row, token).
template <class Format>
TESSERA_DEVICE float finish_integer(const LinearJob& job, uint32_t row, uint32_t token, int32_t sum) {
  const Global<std::byte> x = job.x.bytes(token);
  const int32_t total = x.as<int32_t>(q8::total_offset(job.x_columns))[0];
  const float x_scale = x.as<float>(q8::scale_offset(job.x_columns))[0];
  int32_t offset = 128;
  if constexpr (Format::kFormat == WeightFormat::w4a8) offset = job.weights.zeros[row];
  const float scale = multiply_rn(job.weights.scales[row], x_scale);
  float result = multiply_rn(scale, static_cast<float>(sum - offset * total));
  if (!job.bias.null()) result = add_rn(result, job.bias[row]);
  return result;
}

}  // namespace tessera::cuda
