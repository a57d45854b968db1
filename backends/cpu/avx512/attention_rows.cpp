// The row-wise half of integer attention: queries and weights as digits, powers of two.
#include <immintrin.h>

#include "backends/cpu/avx512/avx512.h"

namespace tessera::cpu::avx512 {

namespace {

constexpr size_t kPageTokens = 64;

__mmask16 mask_of(size_t left) { return static_cast<__mmask16>(left >= 16 ? 0xffffu : (1u << left) - 1u); }

__m512 halves(const uint16_t* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// 2^x: x = n + f with |f| <= 1/2; 2^f by a polynomial of degree 6 fitted for the least largest relative error
// (2e-9), then the exponent by scaling.
__m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(kPower6);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower5));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower4));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower3));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower2));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower1));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// A step that vanishes or has no finite inverse makes all digits 0.
float inverse_of(float step) { return step >= kLeastNormal ? 1.0f / step : 0.0f; }

// Largest |q|, and the sum of q in an order that depends on n alone.
struct Scan {
  float largest;
  float sum;
};

Scan scan(const float* q, size_t n) {
  __m512 largest = _mm512_setzero_ps();
  __m512 sum = _mm512_setzero_ps();
  for (size_t i = 0; i < n; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(mask_of(n - i), q + i);
    largest = _mm512_max_ps(_mm512_abs_ps(v), largest);
    sum = _mm512_add_ps(sum, v);
  }
  return {_mm512_reduce_max_ps(largest), _mm512_reduce_add_ps(sum)};
}

// Which of the 16 tokens from 16 i on a page of `keys` tokens holds. The others' scales may be anything.
__mmask16 tokens_of(size_t keys, size_t i) { return keys > 16 * i ? mask_of(keys - 16 * i) : __mmask16{0}; }

float largest_of(const __m512 (&v)[4]) {
  return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3])));
}

}  // namespace

void split_query8(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms) {
  const Scan all = scan(q, head_dim);
  const float step = all.largest / kLargestQuery16;
  const __m512 inverse = _mm512_set1_ps(inverse_of(step));
  __m512i high_sum = _mm512_setzero_si512();
  __m512i low_sum = _mm512_setzero_si512();
  for (size_t i = 0; i < head_dim; i += 16) {
    const __mmask16 mask = mask_of(head_dim - i);
    __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, q + i), inverse));
    whole = _mm512_min_epi32(_mm512_max_epi32(whole, _mm512_set1_epi32(-kLargestQuery16)),
                             _mm512_set1_epi32(kLargestQuery16));
    const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(128)), 8);
    const __m512i low = _mm512_sub_epi32(whole, _mm512_slli_epi32(high, 8));
    _mm512_mask_cvtepi32_storeu_epi8(digits + i, mask, high);
    _mm512_mask_cvtepi32_storeu_epi8(digits + head_dim + i, mask, low);
    high_sum = _mm512_add_epi32(high_sum, high);
    low_sum = _mm512_add_epi32(low_sum, low);
  }
  // 0 * sum passes on what is not finite.
  *terms = {scale * (step + 0.0f * all.sum), scale * all.sum, _mm512_reduce_add_epi32(high_sum),
            _mm512_reduce_add_epi32(low_sum)};
}

void split_query4(const float* q, size_t head_dim, float scale, uint8_t* digits, QueryTerms* terms) {
  const Scan all = scan(q, head_dim);
  const float step = all.largest / kLargestQuery8;
  const __m512 inverse = _mm512_set1_ps(inverse_of(step));
  __m512i sum = _mm512_setzero_si512();
  for (size_t i = 0; i < head_dim; i += 16) {
    const __mmask16 mask = mask_of(head_dim - i);
    __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, q + i), inverse));
    whole = _mm512_min_epi32(_mm512_max_epi32(whole, _mm512_set1_epi32(-kLargestQuery8)),
                             _mm512_set1_epi32(kLargestQuery8));
    _mm512_mask_cvtepi32_storeu_epi8(digits + i, mask, whole);
    sum = _mm512_add_epi32(sum, whole);
  }
  // 0 * sum passes on what is not finite.
  *terms = {scale * (step + 0.0f * all.sum), scale * all.sum, _mm512_reduce_add_epi32(sum), 0};
}

float powers(float* scores, float reference, size_t n, size_t end) {
  const __m512 shift = _mm512_set1_ps(reference);
  const __m512 least = _mm512_set1_ps(kLeastExponent);
  __m512 sum = _mm512_setzero_ps();
  size_t i = 0;
  for (; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scores + i), shift);
    // Not "at least": NaN passes on.
    const __mmask16 kept = _mm512_mask_cmp_ps_mask(mask, x, least, _CMP_NLT_UQ);
    const __m512 p = _mm512_maskz_mov_ps(kept, power_of_two(x));
    _mm512_mask_storeu_ps(scores + i, mask_of(end - i), p);
    sum = _mm512_add_ps(sum, p);
  }
  for (; i < end; i += 16) _mm512_mask_storeu_ps(scores + i, mask_of(end - i), _mm512_setzero_ps());
  return _mm512_reduce_add_ps(sum);
}

void split_weights8(const WeightSplit& job) {
  __m512 scales[4];
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i)
    scales[i] = _mm512_maskz_mov_ps(tokens_of(job.keys, i), halves(job.scales + 16 * i));
  for (size_t q = 0; q < job.queries; ++q) {
    const float* weights = job.weights + q * job.stride;
    uint8_t* digits = job.digits + q * kWeightBytes;
    __m512 scaled[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) scaled[i] = _mm512_mul_ps(_mm512_loadu_ps(weights + 16 * i), scales[i]);
    const float step = largest_of(scaled) / kLargestWeight15;
    const __m512 inverse = _mm512_set1_ps(inverse_of(step));
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const __m512i whole = _mm512_min_epu32(_mm512_cvtps_epi32(_mm512_mul_ps(scaled[i], inverse)),
                                             _mm512_set1_epi32(kLargestWeight15));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(digits + 16 * i),
                       _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(digits + kPageTokens + 16 * i),
                       _mm512_cvtepi32_epi8(whole));
    }
    job.steps[q] = step;
  }
}

void split_weights4(const WeightSplit& job) {
  __m512 scales[4];
  __m512 middles[4];
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const __mmask16 mask = tokens_of(job.keys, i);
    scales[i] = _mm512_maskz_mov_ps(mask, halves(job.scales + 16 * i));
    middles[i] = _mm512_maskz_fmadd_ps(mask, scales[i], _mm512_set1_ps(8.0f), halves(job.minima + 16 * i));
  }
  for (size_t q = 0; q < job.queries; ++q) {
    const float* weights = job.weights + q * job.stride;
    uint8_t* digits = job.digits + q * kWeightBytes;
    float* constants = job.constants + q * kConstantLanes;
    __m512 scaled[4];
    __m512 constant = _mm512_loadu_ps(constants);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const __m512 weight = _mm512_loadu_ps(weights + 16 * i);
      scaled[i] = _mm512_mul_ps(weight, scales[i]);
      constant = _mm512_fmadd_ps(weight, middles[i], constant);
    }
    _mm512_storeu_ps(constants, constant);
    const float step = largest_of(scaled) / kLargestWeight8;
    const __m512 inverse = _mm512_set1_ps(inverse_of(step));
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      // Saturates at 255 = kLargestWeight8.
      _mm_storeu_si128(reinterpret_cast<__m128i*>(digits + 16 * i),
                       _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(scaled[i], inverse))));
    }
    job.steps[q] = step;
  }
}

}  // namespace tessera::cpu::avx512
