// Multiplies queries with the keys of a page on the tensor cores, and turns the scores into weights.
#pragma once

#include "backends/cuda/attention/query_operands.h"
#include "backends/cuda/elementwise/soft_capped.h"

namespace tessera::cuda {

TESSERA_DEVICE void to_words(const Words4& from, uint32_t (&to)[4]) {
  to[0] = from.x;
  to[1] = from.y;
  to[2] = from.z;
  to[3] = from.w;
}

// The products with the four tiles of half a page, rows in the order of write_query's operands. With 4 bits
// the middle of the codes is already subtracted, and the value is the bits of the float kRounder + product.
template <uint32_t kBits>
struct HalfPage {
  using Value = std::conditional_t<kBits == 16, float, int32_t>;
  Value at[operand_count(kBits)][4][4];
};

template <uint32_t kBits>
TESSERA_DEVICE void multiply_half_page(const WarpTile& tile, Shared<Words4> operands, Shared<Words4> units,
                                       uint32_t steps, HalfPage<kBits>& products) {
  constexpr uint32_t kOperands = operand_count(kBits);
  TESSERA_UNROLL
  for (uint32_t t = 0; t < 4; ++t) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      TESSERA_UNROLL
      for (uint32_t m = 0; m < kOperands; ++m) products.at[m][t][i] = 0;
      if constexpr (kBits == 4)
        products.at[0][t][i] = static_cast<int32_t>(kRounderBits) - 8 * tile.code_total[i / 2];
    }
  }
  for (uint32_t step = 0; step < steps; ++step) {
    if constexpr (kBits == 4) {
      uint32_t a[4];
      uint32_t words[4];
      to_words(operands[32 * step + lane_index()], a);
      to_words(units[32 * step + lane_index()], words);
      TESSERA_UNROLL
      for (uint32_t t = 0; t < 4; ++t) {
        const uint32_t b[2] = {words[t] & 0x0f0f0f0fu, words[t] >> 4 & 0x0f0f0f0fu};
        mma_m16n8k32_s8(products.at[0][t], a, b);
      }
    }
    if constexpr (kBits == 8) {
      uint32_t a[2][4];
      to_words(operands[32 * step + lane_index()], a[0]);
      to_words(operands[32 * (steps + step) + lane_index()], a[1]);
      TESSERA_UNROLL
      for (uint32_t pair = 0; pair < 2; ++pair) {
        uint32_t words[4];
        to_words(units[32 * (2 * step + pair) + lane_index()], words);
        TESSERA_UNROLL
        for (uint32_t i = 0; i < 2; ++i) {
          const uint32_t b[2] = {words[2 * i], words[2 * i + 1]};
          mma_m16n8k32_s8(products.at[0][2 * pair + i], a[0], b);
          if (tile.second()) mma_m16n8k32_s8(products.at[1][2 * pair + i], a[1], b);
        }
      }
    }
    if constexpr (kBits == 16) {
      uint32_t a[2][2][4];  // for each operand the two halves of the step's channels
      TESSERA_UNROLL
      for (uint32_t part = 0; part < 2; ++part) {
        to_words(operands[32 * (2 * step + part) + lane_index()], a[0][part]);
        to_words(operands[32 * (2 * (steps + step) + part) + lane_index()], a[1][part]);
      }
      TESSERA_UNROLL
      for (uint32_t t = 0; t < 4; ++t) {
        uint32_t words[4];
        to_words(units[32 * (4 * step + t) + lane_index()], words);
        TESSERA_UNROLL
        for (uint32_t part = 0; part < 2; ++part) {
          const uint32_t b[2] = {words[2 * part], words[2 * part + 1]};
          mma_m16n8k16_f16(products.at[0][t], a[0][part], b);
          if (tile.second()) mma_m16n8k16_f16(products.at[1][t], a[1][part], b);
        }
      }
    }
  }
}

// Stores the scores of the page's keys, multiplied with log2(e), in running.weight. keys: the key part of the
// page.
template <uint32_t kBits>
TESSERA_DEVICE void score_page(const WarpTile& tile, Shared<std::byte> operands, Shared<std::byte> keys,
                               uint32_t head_dim, Running& running) {
  const uint32_t steps = kv::key_steps(head_dim);
  TESSERA_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    HalfPage<kBits> products;
    multiply_half_page<kBits>(tile, operands.as<Words4>(),
                              keys.as<Words4>(half * steps * (kBits / 4) * kv::kUnitBytes), steps, products);
    TESSERA_UNROLL
    for (uint32_t t = 0; t < 4; ++t) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        if constexpr (kBits == 4) {
          running.weight[0][4 * half + t][i] = bits_float(static_cast<uint32_t>(products.at[0][t][i]));
          running.weight[1][4 * half + t][i] = bits_float(static_cast<uint32_t>(products.at[0][t][2 + i]));
        } else {
          TESSERA_UNROLL
          for (uint32_t r = 0; r < 2; ++r) {
            if (r == 1 && !tile.second()) break;
            const auto high = products.at[r][t][i];
            const auto low = products.at[r][t][2 + i];
            if constexpr (kBits == 8)
              running.weight[r][4 * half + t][i] = static_cast<float>(256 * high + low);
            if constexpr (kBits == 16) running.weight[r][4 * half + t][i] = add_rn(high, low);
          }
        }
      }
    }
  }
  const Shared<std::byte> parameters = keys.as<std::byte>(kv::key_code_bytes(kBits, head_dim));
  LaneParameters scales = {};
  LaneParameters minima = {};
  if constexpr (kBits != 16) scales = lane_parameters(parameters, 0);
  if constexpr (kBits == 4) minima = lane_parameters(parameters, 1);
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    if (r == 1 && !tile.second()) break;
    TESSERA_UNROLL
    for (uint32_t t = 0; t < kPageTiles; ++t) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        float& score = running.weight[r][t][i];
        if constexpr (kBits == 16) {
          score = multiply_rn(score, tile.factor[r]);
        } else {
          const float factor = multiply_rn(scales.at[t][i], tile.factor[r]);
          if constexpr (kBits == 8) score = multiply_rn(score, factor);
          if constexpr (kBits == 4) {
            const float middle = multiply_add(8.0f, scales.at[t][i], minima.at[t][i]);
            score =
                multiply_add(add_rn(score, -kRounder), factor, multiply_rn(middle, tile.middle_factor[r]));
          }
        }
      }
    }
  }
}

// cap: in the scores' units; 0: none.
TESSERA_DEVICE void cap_scores(const WarpTile& tile, float cap, Running& running) {
  if (cap == 0.0f) return;
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    if (r == 1 && !tile.second()) break;
    TESSERA_UNROLL
    for (uint32_t t = 0; t < kPageTiles; ++t) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 2; ++i) running.weight[r][t][i] = soft_capped(running.weight[r][t][i], cap);
    }
  }
}

// Subtracts from each score its head's slope times the distance of the key. first_query: of the warp, among
// those of its block, in which the `heads` heads of a token, from first_head on, are contiguous.
TESSERA_DEVICE void subtract_distances(const WarpTile& tile, Global<const float> slopes, uint32_t first_query,
                                       uint32_t first_head, uint32_t heads, uint32_t first_key,
                                       Running& running) {
  if (slopes.null()) return;
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    if (r == 1 && !tile.second()) break;
    const uint32_t query = first_query + lane_index() / 4 + 8 * r;
    const float slope = multiply_rn(slopes[first_head + query % heads], kLog2E);
    TESSERA_UNROLL
    for (uint32_t t = 0; t < kPageTiles; ++t) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t key = first_key + 8 * t + 2 * (lane_index() % 4) + i;
        const auto distance = static_cast<float>(static_cast<int32_t>(tile.limit[r] - key));
        running.weight[r][t][i] = add_rn(running.weight[r][t][i], -multiply_rn(slope, distance));
      }
    }
  }
}

// Sets the scores of keys after a query's position, or before its window, to minus infinity.
TESSERA_DEVICE void hide_unseen_keys(const WarpTile& tile, uint32_t first_key, uint32_t window,
                                     Running& running) {
  const bool in_windows = window == 0 || first_seen_key(tile.last_limit, window) <= first_key;
  if (first_key + kPageTokens - 1 <= tile.first_limit && in_windows) return;
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    TESSERA_UNROLL
    for (uint32_t t = 0; t < kPageTiles; ++t) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t key = first_key + 8 * t + 2 * (lane_index() % 4) + i;
        if (key > tile.limit[r] || key < first_seen_key(tile.limit[r], window))
          running.weight[r][t][i] = bits_float(kMinusInfinity);
      }
    }
  }
}

// Replaces scores by weights 2^(score - largest score so far), and updates the totals.
TESSERA_DEVICE void scores_to_weights(const WarpTile& tile, Running& running) {
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    if (r == 1 && !tile.second()) break;
    float largest = running.largest[r];
    TESSERA_UNROLL
    for (uint32_t t = 0; t < kPageTiles; ++t) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 2; ++i) largest = larger(largest, running.weight[r][t][i]);
    }
    largest = quad_largest(largest);
    running.rescale[r] = power_of_two(add_rn(running.largest[r], -largest));
    running.largest[r] = largest;
    float total = 0;
    TESSERA_UNROLL
    for (uint32_t t = 0; t < kPageTiles; ++t) {
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 2; ++i) {
        running.weight[r][t][i] = power_of_two(add_rn(running.weight[r][t][i], -largest));
        total = add_rn(total, running.weight[r][t][i]);
      }
    }
    running.total[r] = multiply_add(running.total[r], running.rescale[r], total);
  }
}

}  // namespace tessera::cuda
