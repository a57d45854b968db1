// The jobs of attention over 8- and 4-bit KV pages: integer dot products on both sides. Scores are in units
// of log2, so that weights are powers of two. Only plain structs: see kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu {

// One query head of one token as whole numbers. Over 8-bit keys q = step * (256 * high + low), 16 bits in
// all, so that only the keys are rounded; over 4-bit keys q = step * high, 8 bits against the keys' 4. The
// digits lie in a buffer of query_bytes(head_dim), in an order that only the instruction set knows.
struct QueryTerms {
  float factor;  // scale * step
  float total;   // scale * sum of q, not rounded: what a constant added to a key's elements adds to its score
  float middle;  // 4 bits: 8 (total - factor * high_sum), times a key's scale: the middle of codes 0 … 15
  int32_t high_sum;  // sums of the digits
  int32_t low_sum;
};
inline QueryTerms query_terms4(float factor, float total, int32_t digit_sum) {
  return {factor, total, 8.0f * (total - factor * static_cast<float>(digit_sum)), digit_sum, 0};
}
constexpr size_t query_bytes(size_t head_dim) { return (2 * head_dim + 63) / 64 * 64; }

// Scores of one page's keys: y[q][t] = factor * key_scale[t] * (digits . (code[t] - zero)) + total *
// constant[t], with zero and constant 128 and 0 for 8-bit keys, 8 and minimum + 8 key_scale for 4-bit keys;
// or, the same, key_scale[t] * (factor * (digits . code[t]) + middle) + total * minimum[t].
struct ScoreProduct {
  const uint8_t* panels;  // of 16 tokens: codes, f16 scales[16], for 4 bits f16 minima[16]
  size_t panel_stride;
  size_t keys;  // of the page; scores are stored for whole panels
  size_t head_dim;
  const uint8_t* query;  // digits, query_stride bytes apart
  size_t query_stride;
  const QueryTerms* terms;
  size_t queries;
  float* y;
  size_t y_stride;
  const uint8_t* ahead;  // panels that are read soon, for prefetching; null: none
};

// The weights of one page's 64 tokens for some queries, times the values' scales, become whole numbers of a
// step: 15 bits in two digits (the high one below 128) for 8-bit values, 8 bits in one digit for 4-bit
// values.
struct WeightSplit {
  const float* weights;  // [queries], stride floats apart; 64 each, zero where a query sees no token
  size_t stride;
  size_t queries;
  size_t keys;             // tokens that the page holds, 1 to 64
  const uint16_t* scales;  // f16[64] of the page
  const uint16_t* minima;  // f16[64], 4 bits only
  uint8_t* digits;         // [queries][kWeightBytes]
  float* steps;            // [queries]
  // [queries][16], 4 bits only: what add_values4 leaves out, the same for every element of the values. All
  // lanes together gain the sum of weight * minimum, and what an instruction set takes for the codes' zero.
  float* constants;
};
constexpr size_t kWeightBytes = 128;
constexpr size_t kConstantLanes = 16;

// Values of one page, weighted: y[q][d] += step[q] * (digits[q] . code[d]) for 8 bits. For 4 bits the codes
// lie around a zero that each instruction set chooses; y and the constants of WeightSplit together gain
// step * (digits . (code - 8)) + sum of weight * (minimum + 8 scale).
struct ValueProduct {
  const uint8_t* panels;  // of 16 dimensions by 64 tokens
  size_t panel_stride;
  size_t keys;            // digits of later tokens are zero and may be left out
  size_t head_dim;        // y holds whole panels
  const uint8_t* digits;  // kWeightBytes apart
  const float* steps;
  size_t queries;
  float* y;
  size_t y_stride;
  const uint8_t* ahead;
};

// Bounds of the digits: 256 * 127 + 127, so that both digits of a query are signed bytes.
constexpr int kLargestQuery16 = 32639;
constexpr int kLargestQuery8 = 127;
constexpr int kLargestWeight15 = 32767;
constexpr int kLargestWeight8 = 255;
// Longest head whose sums of products stay within 32 bits.
constexpr size_t kLongestHead = 256;
static_assert(static_cast<long long>(kLongestHead) * 255 * kLargestQuery16 < (1LL << 31),
              "a sum of 8-bit codes times 16-bit queries fits 32 bits");
static_assert(64LL * 128 * kLargestWeight15 < (1LL << 31),
              "a page's sum of 8-bit codes times 15-bit weights fits 32 bits");

// Smallest normal float: steps below it have no finite inverse.
constexpr float kLeastNormal = 0x1p-126f;
// Weights 2^x with x below this are zero: they could not change a sum.
constexpr float kLeastExponent = -100.0f;
// 2^f = 1 + f (kPower1 + f (kPower2 + …)) for |f| <= 1/2, fitted for the least largest relative error (2e-9)
// by Lawson's reweighted least squares.
constexpr float kPower1 = 0x1.62e430p-1f;
constexpr float kPower2 = 0x1.ebfbdcp-3f;
constexpr float kPower3 = 0x1.c6aee8p-5f;
constexpr float kPower4 = 0x1.3b2d4cp-7f;
constexpr float kPower5 = 0x1.5f3e52p-10f;
constexpr float kPower6 = 0x1.41fbbcp-13f;

// The same by degree 3 for f in [0, 1], to 7.5e-5.
constexpr float kCoarsePower0 = 0x1.fff632p-1f;
constexpr float kCoarsePower1 = 0x1.64444cp-1f;
constexpr float kCoarsePower2 = 0x1.cefc4cp-3f;
constexpr float kCoarsePower3 = 0x1.3f96a4p-4f;
constexpr double kCoarseError = 7.6e-5;

// Queries and weights as whole numbers, and powers of two: what attention computes row by row.
struct AttentionRowKernels {
  void (*split_query8)(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms);
  void (*split_query4)(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms);
  // scores[i] = 2^(scores[i] - reference) for i < n, 0 where that is below 2^-100, and zero from n up to
  // `end`; returns their sum, added in an order that depends on n alone.
  float (*powers)(float* scores, float reference, size_t n, size_t end);
  // The same to a relative error of kCoarseError, for weights that become 8 bits; below 2^-100 either 0 or
  // the power.
  float (*coarse_powers)(float* scores, float reference, size_t n, size_t end);
  void (*split_weights8)(const WeightSplit&);
  void (*split_weights4)(const WeightSplit&);
};

// Products with the keys and the values of a page.
struct AttentionProductKernels {
  void (*score_keys8)(const ScoreProduct&);
  void (*score_keys4)(const ScoreProduct&);
  void (*add_values8)(const ValueProduct&);
  void (*add_values4)(const ValueProduct&);
};

}  // namespace tessera::cpu
