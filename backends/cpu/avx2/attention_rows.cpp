// The row-wise half of integer attention with 256-bit vectors: queries and weights as digits, powers of two.
// Digits of 8-bit pages are one 16-bit word each, ready for vpmaddwd.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx2/lane_sums.h"
#include "backends/cpu/avx2/partial_vectors.h"

namespace tessera::cpu::avx2 {

namespace {

constexpr size_t kPageTokens = 64;

__m256 halves(const uint16_t* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

__m256 absolute(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

// 2^n for whole numbers n in [-126, 127].
__m256 whole_power(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

// 2^x for x in [-126, 127]: x = n + f, see attention_kernels.h for 2^f; n goes into the exponent bits.
__m256 fine_power(__m256 x) {
  const __m256i whole = _mm256_cvtps_epi32(x);
  const __m256 f = _mm256_sub_ps(x, _mm256_cvtepi32_ps(whole));
  __m256 p = _mm256_set1_ps(kPower6);
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kPower5));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kPower4));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kPower3));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kPower2));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kPower1));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  return _mm256_mul_ps(p, whole_power(whole));
}

__m256 coarse_power(__m256 x) {
  const __m256 n = _mm256_floor_ps(x);
  const __m256 f = _mm256_sub_ps(x, n);
  __m256 p = _mm256_set1_ps(kCoarsePower3);
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kCoarsePower2));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kCoarsePower1));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kCoarsePower0));
  return _mm256_mul_ps(p, whole_power(_mm256_cvtps_epi32(n)));
}

template <__m256 (*kPower)(__m256)>
[[gnu::always_inline]] inline float powers_by(float* scores, float reference, size_t n, size_t end) {
  const __m256 shift = _mm256_set1_ps(reference);
  const __m256 least = _mm256_set1_ps(kLeastExponent);
  __m256 sum = _mm256_setzero_ps();
  size_t i = 0;
  for (; i < n; i += 8) {
    const __m256 x = _mm256_sub_ps(load_floats(scores + i, n - i), shift);
    // Not "at least": NaN passes on.
    const __m256 dropped = _mm256_cmp_ps(x, least, _CMP_LT_OQ);
    const __m256 lanes = _mm256_castsi256_ps(lanes_below(n - i));
    const __m256 p = _mm256_and_ps(_mm256_andnot_ps(dropped, kPower(x)), lanes);
    store_floats(scores + i, end - i, p);
    sum = _mm256_add_ps(sum, p);
  }
  for (; i < end; i += 8) store_floats(scores + i, end - i, _mm256_setzero_ps());
  return sum_of_lanes(sum);
}

// A step that vanishes or has no finite inverse makes all digits 0.
float inverse_of(float step) { return step >= kLeastNormal ? 1.0f / step : 0.0f; }

struct Scan {
  float largest;
  float sum;
};

Scan scan(const float* q, size_t n) {
  __m256 largest = _mm256_setzero_ps();
  __m256 sum = _mm256_setzero_ps();
  for (size_t i = 0; i < n; i += 8) {
    const __m256 v = load_floats(q + i, n - i);
    largest = _mm256_max_ps(absolute(v), largest);
    sum = _mm256_add_ps(sum, v);
  }
  return {largest_lane(largest), sum_of_lanes(sum)};
}

__m256i whole_numbers(const float* x, size_t left, __m256 inverse, int low, int high) {
  const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(load_floats(x, left), inverse));
  return _mm256_min_epi32(_mm256_max_epi32(whole, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
}

// Eight 32-bit lanes as words or bytes; nothing is lost because they fit.
__m128i words_of(__m256i v) {
  return _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

void store_words(uint8_t* at, __m256i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(at), words_of(v)); }

void store_signed_bytes(uint8_t* at, __m256i v) {
  const __m128i words = words_of(v);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(at), _mm_packs_epi16(words, words));
}

void store_unsigned_bytes(uint8_t* at, __m256i v) {
  const __m128i words = words_of(v);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(at), _mm_packus_epi16(words, words));
}

// Scales of a page, 0 for tokens that it does not hold: those may be anything.
struct PageScales {
  __m256 at[kPageTokens / 8];
  PageScales(const uint16_t* scales, size_t keys) {
    for (size_t i = 0; i < kPageTokens / 8; ++i) {
      const __m256i mask = lanes_below(keys > 8 * i ? keys - 8 * i : 0);
      at[i] = _mm256_and_ps(halves(scales + 8 * i), _mm256_castsi256_ps(mask));
    }
  }
};

// weights times scales; returns the largest.
float scaled_weights(const float* weights, const PageScales& scales, float* scaled) {
  __m256 largest = _mm256_setzero_ps();
  for (size_t i = 0; i < kPageTokens / 8; ++i) {
    const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(weights + 8 * i), scales.at[i]);
    _mm256_storeu_ps(scaled + 8 * i, v);
    largest = _mm256_max_ps(v, largest);
  }
  return largest_lane(largest);
}

void split_query8(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms) {
  const Scan all = scan(q, head_dim);
  const float step = all.largest / kLargestQuery16;
  const __m256 inverse = _mm256_set1_ps(inverse_of(step));
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < head_dim; i += 8) {
    const __m256i whole = whole_numbers(q + i, head_dim - i, inverse, -kLargestQuery16, kLargestQuery16);
    store_words(digits + 2 * i, whole);
    sum = _mm256_add_epi32(sum, whole);
  }
  // 0 * sum passes on what is not finite.
  *terms = {scale * (step + 0.0f * all.sum), scale * all.sum, 0.0f, 0, sum_of_lanes(sum)};
}

void split_query4(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms) {
  const Scan all = scan(q, head_dim);
  const float step = all.largest / kLargestQuery8;
  const __m256 inverse = _mm256_set1_ps(inverse_of(step));
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < head_dim; i += 8) {
    const __m256i whole = whole_numbers(q + i, head_dim - i, inverse, -kLargestQuery8, kLargestQuery8);
    store_signed_bytes(digits + i, whole);
    sum = _mm256_add_epi32(sum, whole);
  }
  *terms = query_terms4(scale * (step + 0.0f * all.sum), scale * all.sum, sum_of_lanes(sum));
}

float powers(float* scores, float reference, size_t n, size_t end) {
  return powers_by<fine_power>(scores, reference, n, end);
}

float coarse_powers(float* scores, float reference, size_t n, size_t end) {
  return powers_by<coarse_power>(scores, reference, n, end);
}

void split_weights8(const WeightSplit& job) {
  const PageScales scales(job.scales, job.keys);
  alignas(32) float scaled[kPageTokens];
  for (size_t q = 0; q < job.queries; ++q) {
    uint8_t* digits = job.digits + q * kWeightBytes;
    job.steps[q] = scaled_weights(job.weights + q * job.stride, scales, scaled) / kLargestWeight15;
    const __m256 inverse = _mm256_set1_ps(inverse_of(job.steps[q]));
    for (size_t i = 0; i < kPageTokens; i += 8)
      store_words(digits + 2 * i, whole_numbers(scaled + i, 8, inverse, 0, kLargestWeight15));
  }
}

void split_weights4(const WeightSplit& job) {
  const PageScales scales(job.scales, job.keys);
  const PageScales minima(job.minima, job.keys);
  alignas(32) float scaled[kPageTokens];
  for (size_t q = 0; q < job.queries; ++q) {
    const float* weights = job.weights + q * job.stride;
    uint8_t* digits = job.digits + q * kWeightBytes;
    float* constants = job.constants + q * kConstantLanes;
    job.steps[q] = scaled_weights(weights, scales, scaled) / kLargestWeight8;
    const __m256 inverse = _mm256_set1_ps(inverse_of(job.steps[q]));
    for (size_t i = 0; i < kPageTokens / 8; ++i) {
      store_unsigned_bytes(digits + 8 * i, whole_numbers(scaled + 8 * i, 8, inverse, 0, kLargestWeight8));
      const __m256 middle = _mm256_fmadd_ps(scales.at[i], _mm256_set1_ps(8.0f), minima.at[i]);
      float* lanes = constants + 8 * (i % 2);
      _mm256_storeu_ps(lanes,
                       _mm256_fmadd_ps(_mm256_loadu_ps(weights + 8 * i), middle, _mm256_loadu_ps(lanes)));
    }
  }
}

}  // namespace

constinit const AttentionRowKernels kAttentionRows{
    .split_query8 = split_query8,
    .split_query4 = split_query4,
    .powers = powers,
    .coarse_powers = coarse_powers,
    .split_weights8 = split_weights8,
    .split_weights4 = split_weights4,
};

}  // namespace tessera::cpu::avx2
