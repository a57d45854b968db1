// Multiplies the weights of a page with its values on the tensor cores and adds them to the running sums.
#pragma once

#include "backends/cuda/attention/score_page.h"

namespace tessera::cuda {

// The weights of a page as left operands. 16 bits: each weight is the sum of two f16. Otherwise weights are
// multiplied with the values' scales and rounded to integers, in steps of max / 255 with 4 bits and of max /
// 65535, as two bytes, with 8.
template <uint32_t kBits>
struct WeightOperands {
  static constexpr uint32_t kSteps = kBits == 16 ? kPageTiles / 2 : kPageTiles / 4;
  uint32_t at[operand_count(kBits)][kSteps][4];
  float step[2];
  int32_t start[2];  // 4 bits: initial value of sums, which subtracts the middle of the codes
};

template <uint32_t kBits>
TESSERA_DEVICE void make_operands(const WarpTile& tile, Shared<std::byte> parameters, Running& running,
                                  WeightOperands<kBits>& operands) {
  if constexpr (kBits == 16) {
    TESSERA_UNROLL
    for (uint32_t r = 0; r < 2; ++r) {
      if (r == 1 && !tile.second()) break;
      TESSERA_UNROLL
      for (uint32_t t = 0; t < kPageTiles; ++t) {
        const float a = running.weight[r][t][0];
        const float b = running.weight[r][t][1];
        const uint32_t high = floats_to_halves(a, b);
        operands.at[r][t / 2][t % 2 * 2] = high;
        operands.at[r][t / 2][t % 2 * 2 + 1] =
            floats_to_halves(add_rn(a, -low_half(high)), add_rn(b, -high_half(high)));
      }
    }
  } else {
    const LaneParameters scales = lane_parameters(parameters, 0);
    LaneParameters minima = {};
    if constexpr (kBits == 4) minima = lane_parameters(parameters, 1);
    TESSERA_UNROLL
    for (uint32_t r = 0; r < 2; ++r) {
      if (r == 1 && !tile.second()) break;
      float largest = 0;
      float constant = 0;
      TESSERA_UNROLL
      for (uint32_t t = 0; t < kPageTiles; ++t) {
        TESSERA_UNROLL
        for (uint32_t i = 0; i < 2; ++i) {
          float& weight = running.weight[r][t][i];
          if constexpr (kBits == 4)
            constant = multiply_add(weight, multiply_add(8.0f, scales.at[t][i], minima.at[t][i]), constant);
          weight = multiply_rn(weight, scales.at[t][i]);
          largest = larger(largest, weight);
        }
      }
      largest = quad_largest(largest);
      constexpr float kMost = kBits == 4 ? 255.0f : 65535.0f;
      const bool is_tiny = !(largest > kTiny);
      const float inverse = is_tiny ? 0.0f : divide_rn(kMost, largest);
      operands.step[r] = is_tiny ? 0.0f : divide_rn(largest, kMost);
      if constexpr (kBits == 4)
        running.constant[r] = multiply_add(running.constant[r], running.rescale[r], constant);
      int32_t code_total = 0;
      TESSERA_UNROLL
      for (uint32_t s = 0; s < operands.kSteps; ++s) {
        TESSERA_UNROLL
        for (uint32_t side = 0; side < 2; ++side) {
          const uint32_t t = 4 * s + 2 * side;
          uint32_t codes[4];
          TESSERA_UNROLL
          for (uint32_t i = 0; i < 4; ++i)
            codes[i] = float_bits(multiply_add(running.weight[r][t + i / 2][i % 2], inverse, kRounder));
          const uint32_t low = pack_bytes<0>(codes[0], codes[1], codes[2], codes[3]);
          if constexpr (kBits == 4) {
            operands.at[0][s][2 * side + r] = low;
            code_total = dp4a_u8s8(low, 0x01010101u, code_total);
          } else {
            operands.at[r][s][2 * side] = pack_bytes<1>(codes[0], codes[1], codes[2], codes[3]);
            operands.at[r][s][2 * side + 1] = low;
          }
        }
      }
      if constexpr (kBits == 4)
        operands.start[r] = static_cast<int32_t>(kRounderBits) - 8 * quad_sum(code_total);
    }
  }
}

// sum = sum * rescale + step * product
TESSERA_DEVICE void fold(Running& running, uint32_t r, uint32_t n, float step, float x, float y) {
  running.sums[r][n][0] = multiply_add(running.sums[r][n][0], running.rescale[r], multiply_rn(step, x));
  running.sums[r][n][1] = multiply_add(running.sums[r][n][1], running.rescale[r], multiply_rn(step, y));
}

// Tiles of eight elements that are multiplied at once, so that consecutive products are independent.
inline constexpr uint32_t kTilesAtOnce = 4;

template <uint32_t kBits>
struct ValueOperands {
  uint32_t at[kTilesAtOnce][WeightOperands<kBits>::kSteps][2];
};

// Loads tiles n … n + 3 of the warp's `tiles`, which begin at first_tile; tiles beyond the last repeat
// others.
template <uint32_t kBits>
TESSERA_DEVICE void load_values(Shared<Words4> units, uint32_t first_tile, uint32_t tiles, uint32_t n,
                                ValueOperands<kBits>& b) {
  if constexpr (kBits == 4) {
    TESSERA_UNROLL
    for (uint32_t pair = 0; pair < kTilesAtOnce / 2; ++pair) {
      const uint32_t real = n + 2 * pair < tiles ? n + 2 * pair : n;
      uint32_t words[4];
      to_words(units[32 * ((first_tile + real) / 2) + lane_index()], words);
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 4; ++i) {
        b.at[2 * pair][i / 2][i % 2] = words[i] & 0x0f0f0f0fu;
        b.at[2 * pair + 1][i / 2][i % 2] = words[i] >> 4 & 0x0f0f0f0fu;
      }
    }
  } else {
    constexpr uint32_t kUnits = kBits / 8;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kTilesAtOnce; ++i) {
      const uint32_t real = n + i < tiles ? n + i : n;
      TESSERA_UNROLL
      for (uint32_t u = 0; u < kUnits; ++u) {
        uint32_t words[4];
        to_words(units[32 * (kUnits * (first_tile + real) + u) + lane_index()], words);
        TESSERA_UNROLL
        for (uint32_t w = 0; w < 4; ++w) b.at[i][2 * u + w / 2][w % 2] = words[w];
      }
    }
  }
}

// Adds the products with tiles n … n + 3.
template <uint32_t kBits>
TESSERA_DEVICE void add_tiles(const WarpTile& tile, const WeightOperands<kBits>& a,
                              const ValueOperands<kBits>& b, uint32_t n, Running& running) {
  using Value = std::conditional_t<kBits == 16, float, int32_t>;
  TESSERA_UNROLL
  for (uint32_t m = 0; m < operand_count(kBits); ++m) {
    if (m == 1 && !tile.second()) break;
    Value d[kTilesAtOnce][4];
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kTilesAtOnce; ++i) {
      TESSERA_UNROLL
      for (uint32_t j = 0; j < 4; ++j) {
        d[i][j] = 0;
        if constexpr (kBits == 4) d[i][j] = a.start[j / 2];
      }
    }
    TESSERA_UNROLL
    for (uint32_t s = 0; s < a.kSteps; ++s) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kTilesAtOnce; ++i) {
        if constexpr (kBits == 16) {
          mma_m16n8k16_f16(d[i], a.at[m][s], b.at[i][s]);
        } else {
          mma_m16n8k32_u8s8(d[i], a.at[m][s], b.at[i][s]);
        }
      }
    }
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kTilesAtOnce; ++i) {
      if constexpr (kBits == 16)
        fold(running, m, n + i, 1.0f, add_rn(d[i][0], d[i][2]), add_rn(d[i][1], d[i][3]));
      if constexpr (kBits == 8)
        fold(running, m, n + i, a.step[m], static_cast<float>(256 * d[i][0] + d[i][2]),
             static_cast<float>(256 * d[i][1] + d[i][3]));
      if constexpr (kBits == 4) {
        TESSERA_UNROLL
        for (uint32_t r = 0; r < 2; ++r) {
          if (r == 1 && !tile.second()) break;
          fold(running, r, n + i, a.step[r],
               add_rn(bits_float(static_cast<uint32_t>(d[i][2 * r])), -kRounder),
               add_rn(bits_float(static_cast<uint32_t>(d[i][2 * r + 1])), -kRounder));
        }
      }
    }
  }
}

// values: the value part of the page, of whose tiles of elements the warp has `tiles` from first_tile on.
template <uint32_t kBits>
TESSERA_DEVICE void add_values(const WarpTile& tile, Shared<std::byte> values, uint32_t head_dim,
                               uint32_t first_tile, uint32_t tiles, Running& running) {
  WeightOperands<kBits> operands = {};
  make_operands<kBits>(tile, values.as<std::byte>(kv::value_code_bytes(kBits, head_dim)), running, operands);
  TESSERA_UNROLL
  for (uint32_t n = 0; n < kMostTiles; n += kTilesAtOnce) {
    if (n >= tiles) break;
    ValueOperands<kBits> b;
    load_values<kBits>(values.as<Words4>(), first_tile, tiles, n, b);
    add_tiles<kBits>(tile, operands, b, n, running);
  }
}

}  // namespace tessera::cuda
