// Row-wise jobs with 512-bit vectors: norm, quantization, gate, rotation, softmax pieces.
#include <immintrin.h>

#include "backends/cpu/avx512/avx512.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"

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

void rms_norm(const float* x, const float* added, float multiplier, float* sum, const float* gain,
              float epsilon, size_t n, float* y) {
  // Squares are summed in double: no overflow for any finite x, and the result hardly depends on the order.
  const __m512 multipliers = _mm512_set1_ps(multiplier);
  __m512d squares[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    __m512 value = _mm512_maskz_loadu_ps(mask, x + i);
    if (added != nullptr) {
      value = _mm512_add_ps(value, _mm512_mul_ps(multipliers, _mm512_maskz_loadu_ps(mask, added + i)));
      _mm512_mask_storeu_ps(sum + i, mask, value);
    }
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(value));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1));
    squares[0] = _mm512_fmadd_pd(low, low, squares[0]);
    squares[1] = _mm512_fmadd_pd(high, high, squares[1]);
  }
  const double mean = _mm512_reduce_add_pd(_mm512_add_pd(squares[0], squares[1])) / static_cast<double>(n);
  const auto factor = static_cast<float>(1.0 / __builtin_sqrt(mean + static_cast<double>(epsilon)));
  const float* source = added != nullptr ? sum : x;
  const __m512 factors = _mm512_set1_ps(factor);
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, source + i), factors);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(value, _mm512_maskz_loadu_ps(mask, gain + i)));
  }
}

void layer_norm(const float* x, const float* added, float multiplier, float* sum, const float* gain,
                const float* bias, float epsilon, size_t n, float* y) {
  const __m512 multipliers = _mm512_set1_ps(multiplier);
  __m512d totals[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    __m512 value = _mm512_maskz_loadu_ps(mask, x + i);
    if (added != nullptr) {
      value = _mm512_add_ps(value, _mm512_mul_ps(multipliers, _mm512_maskz_loadu_ps(mask, added + i)));
      _mm512_mask_storeu_ps(sum + i, mask, value);
    }
    totals[0] = _mm512_add_pd(totals[0], _mm512_cvtps_pd(_mm512_castps512_ps256(value)));
    totals[1] = _mm512_add_pd(totals[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1)));
  }
  const double count = static_cast<double>(n);
  const __m512d mean = _mm512_set1_pd(_mm512_reduce_add_pd(_mm512_add_pd(totals[0], totals[1])) / count);
  const float* source = added != nullptr ? sum : x;
  __m512d squares[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 value = _mm512_maskz_loadu_ps(mask, source + i);
    const __m256 low = _mm512_cvtpd_ps(_mm512_sub_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(value)), mean));
    const __m256 high =
        _mm512_cvtpd_ps(_mm512_sub_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1)), mean));
    const __m512 centred =
        _mm512_maskz_mov_ps(mask, _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1));
    _mm512_mask_storeu_ps(y + i, mask, centred);
    const __m512d lower = _mm512_cvtps_pd(_mm512_castps512_ps256(centred));
    const __m512d upper = _mm512_cvtps_pd(_mm512_extractf32x8_ps(centred, 1));
    squares[0] = _mm512_fmadd_pd(lower, lower, squares[0]);
    squares[1] = _mm512_fmadd_pd(upper, upper, squares[1]);
  }
  const double variance = _mm512_reduce_add_pd(_mm512_add_pd(squares[0], squares[1])) / count;
  const __m512 factors =
      _mm512_set1_ps(static_cast<float>(1.0 / __builtin_sqrt(variance + static_cast<double>(epsilon))));
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, y + i), factors);
    _mm512_mask_storeu_ps(
        y + i, mask,
        _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(mask, gain + i), _mm512_maskz_loadu_ps(mask, bias + i)));
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
    int32_t sum = 0;
    for (size_t first = g * q8::kGroup; first < (g + 1) * q8::kGroup; first += q8::kFineGroup) {
      __m512i sums = _mm512_setzero_si512();
      for (size_t k = first; k < first + q8::kFineGroup; k += 16) {
        const __mmask16 mask = k < n ? mask_of(n - k) : __mmask16{0};
        // A division, not a product with the inverse: codes must be those of the reference to the last bit.
        const __m512 quotient =
            _mm512_maskz_div_ps(mask & usable, _mm512_maskz_loadu_ps(mask, x + k), scales);
        const __m512i codes = _mm512_min_epi32(
            _mm512_max_epi32(_mm512_cvtps_epi32(quotient), _mm512_set1_epi32(-127)), _mm512_set1_epi32(127));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q8_row + k), _mm512_cvtepi32_epi8(codes));
        sums = _mm512_add_epi32(sums, codes);
      }
      const int32_t fine = _mm512_reduce_add_epi32(sums);
      __builtin_memcpy(q8_row + q8::fine_sums_offset(n) + 4 * (first / q8::kFineGroup), &fine, sizeof fine);
      sum += fine;
    }
    __builtin_memcpy(q8_row + q8::sums_offset(n) + 4 * g, &sum, sizeof sum);
    total += sum;
  }
  __builtin_memcpy(q8_row + q8::scale_offset(n), &scale, sizeof scale);
  __builtin_memcpy(q8_row + q8::total_offset(n), &total, sizeof total);
}

// The upper halves of floats rounded to bfloat16, half to even, in the upper 16 bits; a NaN stays one.
__m512i rounded_to_bf16(__m512 value) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i nearest = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(nearest, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_and_si512(kept, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
}

static_assert(tile::bf16_position(4) == 4 && tile::bf16_position(5) == 6 && tile::bf16_position(6) == 5 &&
                  tile::bf16_position(7) == 7,
              "the two middle columns of a quad change places");

void round_row(const float* x, size_t n, uint8_t* row) {
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (size_t g = 0; g < bf16_row::groups(n); ++g) {
    __m512 sums = _mm512_setzero_ps();
    for (size_t k = g * bf16_row::kGroup; k < (g + 1) * bf16_row::kGroup; k += 16) {
      const __mmask16 mask = k < n ? mask_of(n - k) : __mmask16{0};
      const __m512i rounded = rounded_to_bf16(_mm512_maskz_loadu_ps(mask, x + k));
      const __m256i words = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + 2 * k), _mm256_shuffle_epi8(words, order));
      sums = _mm512_add_ps(sums, _mm512_castsi512_ps(rounded));
    }
    const float sum = _mm512_reduce_add_ps(sums);
    __builtin_memcpy(row + bf16_row::sums_offset(n) + 4 * g, &sum, sizeof sum);
  }
}

__m512 times_up(__m512 passed, const float* up, size_t i, __mmask16 mask) {
  return up == nullptr ? passed : _mm512_mul_ps(passed, _mm512_maskz_loadu_ps(mask, up + i));
}

void silu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 denominator =
        _mm512_add_ps(_mm512_set1_ps(1.0f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), g)));
    _mm512_mask_storeu_ps(y + i, mask, times_up(_mm512_div_ps(g, denominator), up, i, mask));
  }
}

void gelu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 argument = _mm512_mul_ps(
        g, _mm512_fmadd_ps(_mm512_set1_ps(kGeluCubic), _mm512_mul_ps(g, g), _mm512_set1_ps(kGeluLinear)));
    const __m512 denominator =
        _mm512_add_ps(_mm512_set1_ps(1.0f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), argument)));
    _mm512_mask_storeu_ps(y + i, mask, times_up(_mm512_div_ps(g, denominator), up, i, mask));
  }
}

// tanh(x) = 1 - 2 / (1 + e^2x).
void soft_cap(const float* x, float cap, size_t n, float* y) {
  const __m512 twice = _mm512_set1_ps(2.0f / cap);
  for (size_t i = 0; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    const __m512 power = exponential(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), twice));
    const __m512 lost = _mm512_div_ps(_mm512_set1_ps(2.0f * cap), _mm512_add_ps(_mm512_set1_ps(1.0f), power));
    _mm512_mask_storeu_ps(y + i, mask, _mm512_sub_ps(_mm512_set1_ps(cap), lost));
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
  const __m512 first = _mm512_set1_ps(values[0]);
  __m512 largest[4] = {first, first, first, first};  // one alone would wait for itself
  size_t i = 0;
  for (; i + 64 <= n; i += 64) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j)
      largest[j] = _mm512_max_ps(_mm512_loadu_ps(values + i + 16 * j), largest[j]);
  }
  for (; i < n; i += 16) {
    const __mmask16 mask = mask_of(n - i);
    largest[0] = _mm512_mask_max_ps(largest[0], mask, _mm512_maskz_loadu_ps(mask, values + i), largest[0]);
  }
  return _mm512_reduce_max_ps(
      _mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3])));
}

}  // namespace

constinit const RowKernels kRowKernels{
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .quantize_row = quantize_row,
    .round_row = round_row,
    .silu_gate = silu_gate,
    .gelu_gate = gelu_gate,
    .soft_cap = soft_cap,
    .rotate_head = rotate_head,
    .maximum = maximum,
};

}  // namespace tessera::cpu::avx512
