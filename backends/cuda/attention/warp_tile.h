// The state of a warp of the attention kernels while it iterates over pages: 16 queries that share a KV head.
// Lane 4 g + p has queries g and g + 8, the scores of both with keys 8 t + 2 p and 8 t + 2 p + 1 of the eight
// tiles t of a page, and of both results elements 8 n + 2 p and 8 n + 2 p + 1 of the tiles n.
#pragma once

#include "backends/cuda/attention/attention.h"
#include "backends/cuda/attention/warp_floats.h"

namespace tessera::cuda {

inline constexpr uint32_t kPageTiles = kPageTokens / 8;
inline constexpr uint32_t kMostTiles = kWarpElements / 8;
inline constexpr float kLog2E = 1.44269504088896340736f;
// The largest score before there is any. It is finite, so that minus infinity minus it is minus infinity, not
// NaN.
inline constexpr float kNoScore = -1e30f;
inline constexpr uint32_t kMinusInfinity = 0xff800000u;
// 1.5 * 2^23, as a float and as its bits. Adding it to a float below 2^22 rounds that to an integer, half to
// even, in the low bits; adding an integer to its bits gives the float kRounder + integer.
inline constexpr float kRounder = 12582912.0f;
inline constexpr uint32_t kRounderBits = 0x4b400000u;
// Smaller magnitudes count as zero, because their reciprocals would overflow.
inline constexpr float kTiny = 7.888609052210118e-31f;  // 2^-100

// With 8 and 16 bits an operand holds eight queries: the high parts are its upper rows, the low parts its
// lower ones. With 4 bits there is one part, and an operand holds 16 queries.
constexpr uint32_t operand_count(uint32_t bits) { return bits == 4 ? 1 : 2; }

struct WarpTile {
  uint32_t queries = 0;         // at most kWarpQueries
  uint32_t first_limit = 0;     // the last key that all queries see
  uint32_t last_limit = 0;      // the last key that any query sees
  uint32_t limit[2] = {};       // the last key that each of the lane's two queries sees
  float factor[2] = {};         // of a product with a key's codes, besides the key's scale
  float middle_factor[2] = {};  // 4 bits: of the middle of a key's range, added to the score
  int32_t code_total[2] = {};   // 4 bits: sum of each query's codes

  TESSERA_DEVICE bool second() const { return queries > 8; }  // whether there are queries g + 8
};

// The sums over a chunk so far. `total` and `constant` are only the lane's share.
struct Running {
  float largest[2];                // score, in units of log2
  float total[2];                  // of weights
  float constant[2];               // 4 bits: contribution of the middles of the values to every element
  float sums[2][kMostTiles][2];    // weighted values
  float rescale[2];                // factor of all sums before the current page
  float weight[2][kPageTiles][2];  // the current page's scores, then its weights

  TESSERA_DEVICE void reset() {
    TESSERA_UNROLL
    for (uint32_t r = 0; r < 2; ++r) {
      largest[r] = kNoScore;
      total[r] = 0;
      constant[r] = 0;
      TESSERA_UNROLL
      for (uint32_t n = 0; n < kMostTiles; ++n) sums[r][n][0] = sums[r][n][1] = 0;
    }
  }
};

struct alignas(8) Floats2 {
  float x;
  float y;
};

// The bytes kByte, 0 or 1, of four words in one.
template <uint32_t kByte>
TESSERA_DEVICE uint32_t pack_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  constexpr uint32_t kPair = kByte == 0 ? 0x0040 : 0x0051;
  return prmt(prmt(a, b, kPair), prmt(c, d, kPair), 0x5410);
}

TESSERA_DEVICE float low_half(uint32_t pair) { return half_to_float(static_cast<uint16_t>(pair)); }
TESSERA_DEVICE float high_half(uint32_t pair) { return half_to_float(static_cast<uint16_t>(pair >> 16)); }

// The parameters of one kind for the lane's 16 keys. parameters: where those of the page begin.
struct LaneParameters {
  float at[kPageTiles][2];
};
TESSERA_DEVICE LaneParameters lane_parameters(Shared<std::byte> parameters, uint32_t kind) {
  const Shared<Words4> from = parameters.as<Words4>(kind * kv::kParameterBytes + 32 * (lane_index() % 4));
  LaneParameters result;
  TESSERA_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    const Words4 words = from[half];
    const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
    TESSERA_UNROLL
    for (uint32_t t = 0; t < 4; ++t) {
      result.at[4 * half + t][0] = low_half(pairs[t]);
      result.at[4 * half + t][1] = high_half(pairs[t]);
    }
  }
  return result;
}

}  // namespace tessera::cuda
