// The queries of a warp as left operands of the tensor cores, in shared memory. An operand has eight queries,
// with 4 bits 16; each step of 32 channels of an operand is 512 bytes, with 16 bits 1024, of which every lane
// reads 16 at a time.
#pragma once

#include "backends/cuda/attention/warp_tile.h"

namespace tessera::cuda {

constexpr uint32_t query_bytes(uint32_t bits, uint32_t head_dim) {
  return kv::key_steps(head_dim) * (bits / 4) * kv::kUnitBytes;
}

struct QueryChannels {
  float at[8];
};

// The power of two that scales values up to `largest` to about 2^8, and its inverse.
struct Shift {
  float up;
  float down;
};
TESSERA_DEVICE Shift make_shift(float largest) {
  uint32_t exponent = float_bits(largest) >> 23 & 255u;
  exponent = exponent < 16 ? 16 : (exponent > 254 ? 254 : exponent);
  return {bits_float((262 - exponent) << 23), bits_float((exponent - 8) << 23)};
}

// Stores, if `real`, the lane's eight channels of query q, and returns the factor that its products must be
// multiplied with. 4 bits: codes in steps of max|q| / 127. 8 bits: two bytes in steps of max|q| / 32512. 16
// bits: two f16 each.
template <uint32_t kBits>
TESSERA_DEVICE float write_query(Shared<std::byte> operands, uint32_t steps, uint32_t q, float largest,
                                 const QueryChannels& x, bool real, int32_t& code_total) {
  const uint32_t row = 4 * (q % 8) + lane_index() % 4;  // the lane that reads these
  const uint32_t step = lane_index() / 4;
  if constexpr (kBits == 16) {
    const Shift shift = make_shift(largest);
    uint32_t high[4];
    uint32_t low[4];
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const float a = multiply_rn(x.at[2 * i], shift.up);
      const float b = multiply_rn(x.at[2 * i + 1], shift.up);
      high[i] = floats_to_halves(a, b);
      low[i] = floats_to_halves(add_rn(a, -low_half(high[i])), add_rn(b, -high_half(high[i])));
    }
    if (real) {
      const Shared<Words4> to = operands.as<Words4>(((q / 8 * steps + step) * 64 + row) * 16);
      to.store(0, {high[0], low[0], high[1], low[1]});
      to.store(32, {high[2], low[2], high[3], low[3]});
    }
    return shift.down;
  } else {
    constexpr float kMost = kBits == 4 ? 127.0f : 32512.0f;
    const bool is_tiny = !(largest > kTiny);
    const float inverse = is_tiny ? 0.0f : divide_rn(kMost, largest);
    uint32_t codes[8];
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 8; ++i) codes[i] = float_bits(multiply_add(x.at[i], inverse, kRounder));
    const uint32_t first = pack_bytes<0>(codes[0], codes[1], codes[2], codes[3]);
    const uint32_t second = pack_bytes<0>(codes[4], codes[5], codes[6], codes[7]);
    if constexpr (kBits == 4) {
      code_total = dp4a_s8(second, 0x01010101u, dp4a_s8(first, 0x01010101u, 0));
      if (real) {
        const Shared<uint32_t> to = operands.as<uint32_t>((step * 32 + row) * 16 + q / 8 * 4);
        to.store(0, first);
        to.store(2, second);
      }
    } else {
      // The low bytes are -128 … 127, so the high ones are rounded.
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 8; ++i) codes[i] += 128;
      if (real) {
        operands.as<Words4>(((q / 8 * steps + step) * 32 + row) * 16)
            .store(0, {pack_bytes<1>(codes[0], codes[1], codes[2], codes[3]), first,
                       pack_bytes<1>(codes[4], codes[5], codes[6], codes[7]), second});
      }
    }
    return is_tiny ? 0.0f : divide_rn(largest, kMost);
  }
}

// The queries of a warp: first … first + 15 of the tile's heads * tokens, in which the heads of a token are
// contiguous.
struct QueryRange {
  uint32_t first;
  uint32_t heads;
  uint32_t first_head;
  bool writes;  // false: another warp stores the operands
};

// Stores the operands and fills in `tile`. Rows beyond tile.queries are zero. Other lanes may read the
// operands after a barrier.
template <uint32_t kBits>
TESSERA_DEVICE void load_queries(const AttentionJob& job, const AttentionTile& at, const QueryRange& range,
                                 Shared<std::byte> operands, WarpTile& tile) {
  const uint32_t head_dim = job.kv.head_dim;
  const uint32_t steps = kv::key_steps(head_dim);
  const bool writes = range.writes && lane_index() < 4 * steps;
  for (uint32_t q = 0; q < kWarpQueries; ++q) {
    QueryChannels x = {};
    const bool exists = q < tile.queries;
    if (exists && lane_index() < head_dim / 8) {
      const uint32_t query = range.first + q;
      const size_t head = range.first_head + query % range.heads;
      const Global<const Floats4> from =
          job.qkv.floats(at.first_row + query / range.heads).as<const Floats4>(head * head_dim * 4);
      const Floats4 low = from[2 * lane_index()];
      const Floats4 high = from[2 * lane_index() + 1];
      x = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    }
    float largest = 0;
    float total = 0;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 8; ++i) {
      const float magnitude = bits_float(float_bits(x.at[i]) & 0x7fffffffu);
      largest = larger(largest, magnitude);
      total = add_rn(total, x.at[i]);
    }
    if (exists) largest = warp_largest(largest);
    int32_t code_total = 0;
    const float factor = write_query<kBits>(operands, steps, q, largest, x, writes, code_total);
    if (!exists) continue;
    float scale = multiply_rn(job.scale, kLog2E);
    if (!job.query_factors.null())
      scale = multiply_rn(scale, job.query_factors[at.position + (range.first + q) / range.heads]);
    float middle_factor = 0;
    if constexpr (kBits == 4) {
      code_total = quad_sum(code_total);
      total = quad_sum(total);
      for (uint32_t mask = 4; mask < 32; mask *= 2) {
        code_total += static_cast<int32_t>(shuffle_xor(static_cast<uint32_t>(code_total), mask));
        total = add_rn(total, bits_float(shuffle_xor(float_bits(total), mask)));
      }
      middle_factor = multiply_rn(scale, total);
    }
    TESSERA_UNROLL
    for (uint32_t r = 0; r < 2; ++r) {
      if (q != lane_index() / 4 + 8 * r) continue;
      tile.factor[r] = multiply_rn(scale, factor);
      tile.middle_factor[r] = middle_factor;
      tile.code_total[r] = code_total;
      tile.limit[r] = at.position + (range.first + q) / range.heads;
    }
  }
}

}  // namespace tessera::cuda
