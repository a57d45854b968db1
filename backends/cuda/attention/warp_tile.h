// What a warp of the attention kernels holds while it walks over pages: 16 queries that share a KV head. Lane
// 4 g + p has queries g and g + 8, the scores of both with keys 8 t + 2 p and 8 t + 2 p + 1 of the eight
// tiles t of a page, and of both results elements 8 n + 2 p and 8 n + 2 p + 1 of the tiles n.
#pragma once

#include "backends/cuda/attention/attention.h"
#include "backends/cuda/attention/warp_floats.h"

namespace tessera::cuda {

inline constexpr uint32_t kPageTiles = kPageTokens / 8;
inline constexpr uint32_t kMostTiles = kWarpElements / 8;
inline constexpr float kLog2E = 1.44269504088896340736f;
// Stands for the largest of no scores: finite, so that its difference to a hidden key's minus infinity is
// one.
inline constexpr float kNoScore = -1e30f;
inline constexpr uint32_t kMinusInfinity = 0xff800000u;
// 1.5 * 2^23, as float and as its bits: added to a number below 2^22 it leaves that, rounded to even, in the
// low bits; added to the bits, a whole number becomes a float that holds it.
inline constexpr float kRounder = 12582912.0f;
inline constexpr uint32_t kRounderBits = 0x4b400000u;
// What is smaller than this is nothing: its reciprocal would overflow.
inline constexpr float kNothing = 7.888609052210118e-31f;  // 2^-100

// A product with a sign, for 16 bits and for 8, takes eight queries: their high parts are the upper rows of
// the operand, their low parts the lower ones. With 4 bits there is one part, so it takes all 16.
constexpr uint32_t operand_count(uint32_t bits) { return bits == 4 ? 1 : 2; }

struct WarpTile {
  uint32_t queries = 0;         // at most kWarpQueries
  uint32_t first_limit = 0;     // the last key that all see
  uint32_t last_limit = 0;      // the last key that any sees
  uint32_t limit[2] = {};       // the last key of the lane's two
  float factor[2] = {};         // from a product with a key's codes to a score, but for the key's scale
  float middle_factor[2] = {};  // 4 bits: from a key's middle to what it adds to the score
  int32_t code_total[2] = {};   // 4 bits: sum of the query's codes

  TESSERA_DEVICE bool second() const { return queries > 8; }  // whether queries g + 8 are real
};

// The sums over a chunk so far. `total` and `constant` are the lane's own share.
struct Running {
  float largest[2];                // score, in units of log2
  float total[2];                  // of weights
  float constant[2];               // 4 bits: what the middles of the values add to every element
  float sums[2][kMostTiles][2];    // weighted values
  float rescale[2];                // what the current page multiplies everything before with
  float weight[2][kPageTiles][2];  // of the current page; before that the scores

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

// Byte 0 (with kByte 1: byte 1) of each word.
template <uint32_t kByte>
TESSERA_DEVICE uint32_t pack_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  constexpr uint32_t kPair = kByte == 0 ? 0x0040 : 0x0051;
  return prmt(prmt(a, b, kPair), prmt(c, d, kPair), 0x5410);
}

TESSERA_DEVICE float low_half(uint32_t pair) { return half_to_float(static_cast<uint16_t>(pair)); }
TESSERA_DEVICE float high_half(uint32_t pair) { return half_to_float(static_cast<uint16_t>(pair >> 16)); }

// The parameters of the lane's 16 keys: kind from `parameters`, where a page's lie.
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
