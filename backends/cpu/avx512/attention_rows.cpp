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

// 2^x, 0 below 2^-100: x = n + f with |f| <= 1/2; 2^f by a polynomial of degree 6, then the exponent by
// scaling. NaN passes on.
__m512 fine_power(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(kPower6);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower5));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower4));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower3));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower2));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kPower1));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  const __mmask16 kept = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kLeastExponent), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(kept, p, n);
}

// The same by degree 3, with f in [0, 1): scaling takes the whole part of x by itself, down to zero.
__m512 coarse_power(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(kCoarsePower3);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kCoarsePower2));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kCoarsePower1));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kCoarsePower0));
  return _mm512_scalef_ps(p, x);
}

template <__m512 (*kPower)(__m512)>
[[gnu::always_inline]] inline float powers_by(float* scores, float reference, size_t n, size_t end) {
  const __m512 shift = _mm512_set1_ps(reference);
  __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  size_t i = 0;
  for (; i + 64 <= n; i += 64) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      float* at = scores + i + 16 * j;
      const __m512 p = kPower(_mm512_sub_ps(_mm512_loadu_ps(at), shift));
      _mm512_storeu_ps(at, p);
      sums[j] = _mm512_add_ps(sums[j], p);
    }
  }
  for (; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 p =
        _mm512_maskz_mov_ps(mask, kPower(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scores + i), shift)));
    _mm512_mask_storeu_ps(scores + i, mask_of(end - i), p);
    sums[0] = _mm512_add_ps(sums[0], p);
  }
  for (; i < end; i += 16) _mm512_mask_storeu_ps(scores + i, mask_of(end - i), _mm512_setzero_ps());
  return _mm512_reduce_add_ps(
      _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
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

// Lane i: the largest element of v[i].
__m128 largest_of_each(const __m512 (&v)[4]) {
  const __m512 a = _mm512_max_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  const __m512 b = _mm512_max_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  const __m512 low = _mm512_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 1, 0));
  const __m512 high = _mm512_shuffle_ps(a, b, _MM_SHUFFLE(3, 2, 3, 2));
  const __m512 quarters = _mm512_max_ps(low, high);
  const __m256 halves = _mm256_max_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps(quarters, 1));
  return _mm_max_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

// 64 numbers as unsigned bytes, in order; at most 32,767.
__m512i packed(const __m512 (&v)[4]) {
  const __m512i words_low = _mm512_packus_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
  const __m512i words_high = _mm512_packus_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
  // Packing works within quarters: quarter k holds the k-th four bytes of each vector.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(words_low, words_high));
}

struct PageFactors {
  __m512 scales[4];
  __m512 middles[4];
};

// N rows of weights, 4 or 1, from `query` on.
template <size_t N>
[[gnu::always_inline]] inline void split_rows4(const WeightSplit& job, const PageFactors& page,
                                               size_t query) {
  __m512 scaled[N][4];
  __m512 constants[N];
  __m512 largest[4];
#pragma GCC unroll 4
  for (size_t q = 0; q < N; ++q) {
    const float* weights = job.weights + (query + q) * job.stride;
    constants[q] = _mm512_loadu_ps(job.constants + (query + q) * kConstantLanes);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const __m512 weight = _mm512_loadu_ps(weights + 16 * i);
      scaled[q][i] = _mm512_mul_ps(weight, page.scales[i]);
      constants[q] = _mm512_fmadd_ps(weight, page.middles[i], constants[q]);
    }
    largest[q] =
        _mm512_max_ps(_mm512_max_ps(scaled[q][0], scaled[q][1]), _mm512_max_ps(scaled[q][2], scaled[q][3]));
  }
#pragma GCC unroll 4
  for (size_t q = N; q < 4; ++q) largest[q] = largest[0];
  const __m128 step = _mm_div_ps(largest_of_each(largest), _mm_set1_ps(static_cast<float>(kLargestWeight8)));
  const __mmask8 usable = _mm_cmp_ps_mask(step, _mm_set1_ps(kLeastNormal), _CMP_GE_OQ);
  const __m512 inverses = _mm512_broadcast_f32x4(_mm_maskz_div_ps(usable, _mm_set1_ps(1.0f), step));
  // Values are multiplied as codes 0 … 15, not around their middle: the difference is a constant too.
  const __m512 offsets = _mm512_broadcast_f32x4(_mm_mul_ps(step, _mm_set1_ps(-8.0f)));
  const __m512i ones = _mm512_set1_epi8(1);
  if constexpr (N == 4) {
    _mm_storeu_ps(job.steps + query, step);
  } else {
    _mm_store_ss(job.steps + query, step);
  }
#pragma GCC unroll 4
  for (size_t q = 0; q < N; ++q) {
    const __m512i lane = _mm512_set1_epi32(static_cast<int>(q));
    const __m512 inverse = _mm512_permutexvar_ps(lane, inverses);
    __m512 whole[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) whole[i] = _mm512_mul_ps(scaled[q][i], inverse);
    const __m512i digits = packed(whole);  // saturates at 255 = kLargestWeight8
    _mm512_storeu_si512(job.digits + (query + q) * kWeightBytes, digits);
    const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), digits, ones);
    _mm512_storeu_ps(
        job.constants + (query + q) * kConstantLanes,
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_permutexvar_ps(lane, offsets), constants[q]));
  }
}

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
  *terms = {scale * (step + 0.0f * all.sum), scale * all.sum, 0.0f, _mm512_reduce_add_epi32(high_sum),
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
  *terms = query_terms4(scale * (step + 0.0f * all.sum), scale * all.sum, _mm512_reduce_add_epi32(sum));
}

float powers(float* scores, float reference, size_t n, size_t end) {
  return powers_by<fine_power>(scores, reference, n, end);
}

float coarse_powers(float* scores, float reference, size_t n, size_t end) {
  return powers_by<coarse_power>(scores, reference, n, end);
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
  PageFactors page;
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    const __mmask16 mask = tokens_of(job.keys, i);
    page.scales[i] = _mm512_maskz_mov_ps(mask, halves(job.scales + 16 * i));
    page.middles[i] =
        _mm512_maskz_fmadd_ps(mask, page.scales[i], _mm512_set1_ps(8.0f), halves(job.minima + 16 * i));
  }
  size_t query = 0;
  for (; query + 4 <= job.queries; query += 4) split_rows4<4>(job, page, query);
  for (; query < job.queries; ++query) split_rows4<1>(job, page, query);
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

}  // namespace tessera::cpu::avx512
