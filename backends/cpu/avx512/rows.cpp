// Row-wise jobs with 512-bit vectors: norm, quantization, gate, rotation, softmax pieces.
#include <immintrin.h>

#include "backends/cpu/avx512/avx512.h"
#include "engine/graph/q8_row.h"

namespace tessera::cpu::avx512 {

namespace {

__mmask16 mask_of(size_t left) { return static_cast<__mmask16>(left >= 16 ? 0xffffu : (1u << left) - 1u); }

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r), q of degree 4 fitted for the least
// largest relative error (4e-9) by Lawson's reweighted least squares; then 2^n by scaling, which also makes
// denormal and infinite results. Relative error below 1.2e-7 where the result is a normal number; NaN stays
// NaN because the compares return their second operand.
__m512 exponential(__m512 x) {
  x = _mm512_min_ps(_mm512_set1_ps(104.0f), _mm512_max_ps(_mm512_set1_ps(-104.0f), x));
  const __m512 n =
      _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);  // ln 2 in two parts: the first is exact
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(0x1.6a215ap-10f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123b9ap-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558fcp-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55549p-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

}  // namespace

void rms_norm(const float* x, const float* residual, float* sum, const float* gain, float epsilon, size_t n,
              float* y) {
  // Squares are summed in double: no overflow for any finite x, and the result hardly depends on the order.
  __m512d squares[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    __m512 value = _mm512_maskz_loadu_ps(mask, x + i);
    if (residual != nullptr) {
      value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, residual + i));
      _mm512_mask_storeu_ps(sum + i, mask, value);
    }
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(value));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1));
    squares[0] = _mm512_fmadd_pd(low, low, squares[0]);
    squares[1] = _mm512_fmadd_pd(high, high, squares[1]);
  }
  const double mean = _mm512_reduce_add_pd(_mm512_add_pd(squares[0], squares[1])) / static_cast<double>(n);
  const auto factor = static_cast<float>(1.0 / __builtin_sqrt(mean + static_cast<double>(epsilon)));
  const float* source = residual != nullptr ? sum : x;
  const __m512 factors = _mm512_set1_ps(factor);
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, source + i), factors);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(value, _mm512_maskz_loadu_ps(mask, gain + i)));
  }
}

void quantize_row(const float* x, size_t n, uint8_t* q8_row) {
  __m512 largest = _mm512_setzero_ps();
  for (size_t i = 0; i < n; i += 16) {
    // The running maximum comes second: it survives a NaN in x.
    largest = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(mask_of(n - i), x + i)), largest);
  }
  const float scale = _mm512_reduce_max_ps(largest) / 127.0f;
  const __m512 scales = _mm512_set1_ps(scale);
  const __mmask16 usable = scale > 0 ? 0xffff : 0;
  int32_t total = 0;
  for (size_t g = 0; g < q8::groups(n); ++g) {
    __m512i sums = _mm512_setzero_si512();
    for (size_t k = g * q8::kGroup; k < (g + 1) * q8::kGroup; k += 16) {
      const __mmask16 mask = k < n ? mask_of(n - k) : __mmask16{0};
      // A division, not a product with the inverse: codes must be those of the reference to the last bit.
      const __m512 quotient = _mm512_maskz_div_ps(mask & usable, _mm512_maskz_loadu_ps(mask, x + k), scales);
      const __m512i codes = _mm512_min_epi32(
          _mm512_max_epi32(_mm512_cvtps_epi32(quotient), _mm512_set1_epi32(-127)), _mm512_set1_epi32(127));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q8_row + k), _mm512_cvtepi32_epi8(codes));
      sums = _mm512_add_epi32(sums, codes);
    }
    const int32_t sum = _mm512_reduce_add_epi32(sums);
    __builtin_memcpy(q8_row + q8::sums_offset(n) + 4 * g, &sum, sizeof sum);
    total += sum;
  }
  __builtin_memcpy(q8_row + q8::scale_offset(n), &scale, sizeof scale);
  __builtin_memcpy(q8_row + q8::total_offset(n), &total, sizeof total);
}

void silu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 u = _mm512_maskz_loadu_ps(mask, up + i);
    const __m512 denominator =
        _mm512_add_ps(_mm512_set1_ps(1.0f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), g)));
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(_mm512_div_ps(g, denominator), u));
  }
}

void rotate_head(const float* x, const float* cosines, const float* sines, size_t half, float* y) {
  for (size_t i = 0; i < half; i += 16) {
    const __mmask16 mask = mask_of(half - i);
    const __m512 a = _mm512_maskz_loadu_ps(mask, x + i);
    const __m512 b = _mm512_maskz_loadu_ps(mask, x + half + i);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cosines + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, sines + i);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
    _mm512_mask_storeu_ps(y + half + i, mask, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
  }
}

float maximum(const float* values, size_t n) {
  __m512 largest = _mm512_set1_ps(values[0]);
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    largest = _mm512_mask_max_ps(largest, mask, _mm512_maskz_loadu_ps(mask, values + i), largest);
  }
  return _mm512_reduce_max_ps(largest);
}

}  // namespace tessera::cpu::avx512
