// What differs between the integer weight formats: how a lane's bytes of a panel become operands of
// mma.m16n8k32 and wgmma, and the offset that is subtracted from the sums. Weights are unsigned bytes and
// activations signed ones, so the offset is never applied to single codes.
//
// Kernels read weights in pairs of steps: 64 columns of a panel, that is two operands of 32 columns, one unit
// of 4-bit codes or two units of bytes. Two pairs are a stretch of 128 columns, which is a group of
// w4a8-g128.
#pragma once

#include "backends/cuda/gemm/integer_linear.h"
#include "graph/q8_row.h"

namespace tessera::cuda {

inline constexpr uint32_t kLowNibbles = 0x0f0f0f0fu;
inline constexpr uint32_t kPairColumns = 64;
inline constexpr uint32_t kStretchPairs = 2;
inline constexpr uint32_t kStretchColumns = kStretchPairs * kPairColumns;

// A lane's operands for one pair.
using PairOperands = uint32_t[2][4];

template <WeightFormat kFormat_>
struct IntegerFormat {
  static constexpr WeightFormat kFormat = kFormat_;
  static constexpr uint32_t kPairBytes = layout::kUnitBytes * (has_nibbles(kFormat) ? 1 : 2);
  // Bytes of a stretch of one panel: those of both pairs and, with groups, s1 and a.
  static constexpr uint32_t kStretchBytes =
      kFormat == WeightFormat::w4a8_g128 ? tile::kGroupBytes : kStretchPairs * kPairBytes;

  // Bytes of the first `pairs` pairs of a stretch; groups are always whole.
  TESSERA_BOTH static uint32_t bytes_of(uint32_t pairs) {
    return kFormat == WeightFormat::w4a8_g128 ? kStretchBytes : pairs * kPairBytes;
  }

  // s1 and a of the lane's two rows in a stretch, in the order of layout::scale_byte; 0 without groups.
  TESSERA_DEVICE static uint32_t parameters(Shared<std::byte> stretch) {
    if constexpr (kFormat != WeightFormat::w4a8_g128) return 0;
    return stretch.as<uint32_t>(layout::kParameters)[lane_index() / 4];
  }

  TESSERA_DEVICE static void load_pair(Shared<std::byte> stretch, uint32_t pair, uint32_t parameters,
                                       PairOperands& a) {
    const Shared<std::byte> at = stretch.as<std::byte>(pair * kPairBytes);
    const Words4 words = at.as<Words4>()[lane_index()];
    if constexpr (kFormat == WeightFormat::w8a8) {
      const Words4 more = at.as<Words4>(layout::kUnitBytes)[lane_index()];
      const uint32_t all[2][4] = {{words.x, words.y, words.z, words.w}, {more.x, more.y, more.z, more.w}};
      TESSERA_UNROLL for (uint32_t i = 0; i < 8; ++i) a[i / 4][i % 4] = all[i / 4][i % 4];
    } else {
      const uint32_t codes[2][2] = {{words.x, words.y}, {words.z, words.w}};
      TESSERA_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        a[i / 2][i % 2] = expanded(codes[i / 2][i % 2] & kLowNibbles, i % 2, parameters);
        a[i / 2][2 + i % 2] = expanded(codes[i / 2][i % 2] >> 4 & kLowNibbles, i % 2, parameters);
      }
    }
  }

 private:
  // q * s1 + a for each byte of a word. It is at most 255, so no byte carries into the next.
  TESSERA_DEVICE static uint32_t expanded(uint32_t codes, uint32_t half, uint32_t parameters) {
    if constexpr (kFormat != WeightFormat::w4a8_g128) return codes;
    const uint32_t scale = parameters >> (8 * half) & 255u;
    return codes * scale + prmt(parameters, 0, half == 0 ? 0x2222u : 0x3333u);
  }
};

// Called by one thread: starts bulk copies of `bytes` bytes of each of `count` panels, from offset `byte` on,
// to places to_stride bytes apart. The addresses of panels of one matrix differ by constants, so the first
// loop, which nearly always covers all panels, has them in uniform registers and takes few instructions.
TESSERA_DEVICE void copy_panels(const IntegerJob& job, uint32_t panel, uint32_t count, size_t byte,
                                Shared<std::byte> to, uint32_t to_stride, uint32_t bytes, std::byte* barrier,
                                uint64_t policy) {
  const uint32_t together = job.panels_of_one(panel, count);
  const Global<const std::byte> from = job.codes_of(panel) + byte;
  for (uint32_t p = 0; p < together; ++p)
    bulk_copy(to.as<std::byte>(p * to_stride).address(), (from + p * job.panel_bytes).address(), bytes,
              barrier, policy);
  for (uint32_t p = together; p < count; ++p)
    bulk_copy(to.as<std::byte>(p * to_stride).address(), (job.codes_of(panel + p) + byte).address(), bytes,
              barrier, policy);
}

// The result for (row of the matrix, token) from the exact sum over unsigned codes.
template <class Format>
TESSERA_DEVICE float finish_integer(const IntegerJob& job, const PlacedMatrix& matrix, uint32_t row,
                                    uint32_t token, int32_t sum) {
  const Global<std::byte> x = job.x.bytes(token);
  const int32_t total = x.as<int32_t>(q8::total_offset(job.x_columns))[0];
  const float x_scale = x.as<float>(q8::scale_offset(job.x_columns))[0];
  int32_t offset = 128;
  if constexpr (Format::kFormat == WeightFormat::w4a8) offset = matrix.zeros[row];
  const float scale = multiply_rn(matrix.scales[row], x_scale);
  float result = multiply_rn(scale, static_cast<float>(sum - offset * total));
  if (!matrix.bias.null()) result = add_rn(result, matrix.bias[row]);
  return result;
}

}  // namespace tessera::cuda
