// Row-wise jobs with 256-bit vectors: norm, quantization, gate, rotation, softmax pieces.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx2/lane_sums.h"
#include "backends/cpu/avx2/partial_vectors.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"

namespace tessera::cpu::avx2 {

namespace {

// 2^n for whole n in [-126, 127], from the exponent bits.
__m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r), q of degree 4 fitted for the least
// largest relative error (4e-9) by Lawson's reweighted least squares; then 2^n in two factors so that results
// may be denormal or infinite. Relative error below 1.2e-7 where the result is a normal number; NaN stays NaN
// because the compares return their second operand.
__m256 exponential(__m256 x) {
  x = _mm256_min_ps(_mm256_set1_ps(104.0f), _mm256_max_ps(_mm256_set1_ps(-104.0f), x));
  const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)));
  const __m256 n = _mm256_cvtepi32_ps(whole);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);  // ln 2 in two parts: the first is exact
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(0x1.6a215ap-10f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.123b9ap-7f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.5558fcp-5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.55549p-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffffcp-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i half = _mm256_srai_epi32(whole, 1);
  p = _mm256_mul_ps(p, power_of_two(half));
  return _mm256_mul_ps(p, power_of_two(_mm256_sub_epi32(whole, half)));
}

// Eight quotients x / scale as whole numbers, rounded half to even. A division, not a product with the
// inverse: codes must be those of the reference to the last bit.
__m256i quotients(const float* x, size_t left, __m256 scale) {
  return _mm256_cvtps_epi32(_mm256_div_ps(load_floats(x, left), scale));
}

void rms_norm(const float* x, const float* added, float multiplier, float* sum, const float* gain,
              float epsilon, size_t n, float* y) {
  // Squares are summed in double: no overflow for any finite x, and the result hardly depends on the order.
  const __m256 multipliers = _mm256_set1_ps(multiplier);
  __m256d squares[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  for (size_t i = 0; i < n; i += 8) {
    __m256 value = load_floats(x + i, n - i);
    if (added != nullptr) {
      value = _mm256_add_ps(value, _mm256_mul_ps(multipliers, load_floats(added + i, n - i)));
      store_floats(sum + i, n - i, value);
    }
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(value));
    const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1));
    squares[0] = _mm256_fmadd_pd(low, low, squares[0]);
    squares[1] = _mm256_fmadd_pd(high, high, squares[1]);
  }
  const double mean = sum_of_lanes(_mm256_add_pd(squares[0], squares[1])) / static_cast<double>(n);
  const auto factor = static_cast<float>(1.0 / __builtin_sqrt(mean + static_cast<double>(epsilon)));
  const float* source = added != nullptr ? sum : x;
  const __m256 factors = _mm256_set1_ps(factor);
  for (size_t i = 0; i < n; i += 8) {
    const __m256 value = _mm256_mul_ps(load_floats(source + i, n - i), factors);
    store_floats(y + i, n - i, _mm256_mul_ps(value, load_floats(gain + i, n - i)));
  }
}

void layer_norm(const float* x, const float* added, float multiplier, float* sum, const float* gain,
                const float* bias, float epsilon, size_t n, float* y) {
  const __m256 multipliers = _mm256_set1_ps(multiplier);
  __m256d totals[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  for (size_t i = 0; i < n; i += 8) {
    __m256 value = load_floats(x + i, n - i);
    if (added != nullptr) {
      value = _mm256_add_ps(value, _mm256_mul_ps(multipliers, load_floats(added + i, n - i)));
      store_floats(sum + i, n - i, value);
    }
    totals[0] = _mm256_add_pd(totals[0], _mm256_cvtps_pd(_mm256_castps256_ps128(value)));
    totals[1] = _mm256_add_pd(totals[1], _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1)));
  }
  const double count = static_cast<double>(n);
  const __m256d mean = _mm256_set1_pd(sum_of_lanes(_mm256_add_pd(totals[0], totals[1])) / count);
  const float* source = added != nullptr ? sum : x;
  __m256d squares[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  for (size_t i = 0; i < n; i += 8) {
    const __m256 value = load_floats(source + i, n - i);
    const __m128 low = _mm256_cvtpd_ps(_mm256_sub_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(value)), mean));
    const __m128 high =
        _mm256_cvtpd_ps(_mm256_sub_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(value, 1)), mean));
    store_floats(y + i, n - i, _mm256_set_m128(high, low));
    const __m256 centred = load_floats(y + i, n - i);  // with zeros behind the last one
    const __m256d lower = _mm256_cvtps_pd(_mm256_castps256_ps128(centred));
    const __m256d upper = _mm256_cvtps_pd(_mm256_extractf128_ps(centred, 1));
    squares[0] = _mm256_fmadd_pd(lower, lower, squares[0]);
    squares[1] = _mm256_fmadd_pd(upper, upper, squares[1]);
  }
  const double variance = sum_of_lanes(_mm256_add_pd(squares[0], squares[1])) / count;
  const __m256 factors =
      _mm256_set1_ps(static_cast<float>(1.0 / __builtin_sqrt(variance + static_cast<double>(epsilon))));
  for (size_t i = 0; i < n; i += 8) {
    const __m256 value = _mm256_mul_ps(load_floats(y + i, n - i), factors);
    store_floats(y + i, n - i,
                 _mm256_fmadd_ps(value, load_floats(gain + i, n - i), load_floats(bias + i, n - i)));
  }
}

void quantize_row(const float* x, size_t n, uint8_t* q8_row) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 largest = _mm256_setzero_ps();
  for (size_t i = 0; i < n; i += 8) {
    // The running maximum comes second: it survives a NaN in x.
    largest = _mm256_max_ps(_mm256_and_ps(load_floats(x + i, n - i), magnitude), largest);
  }
  const float scale = largest_lane(largest) / 127.0f;
  const __m256 divisor = _mm256_set1_ps(scale);
  const __m256i lowest = _mm256_set1_epi8(-127);
  const __m256i ones8 = _mm256_set1_epi8(1);
  const __m256i ones16 = _mm256_set1_epi16(1);
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  int32_t total = 0;
  for (size_t g = 0; g < q8::groups(n); ++g) {
    int32_t sum = 0;
    for (size_t k = g * q8::kGroup; k < (g + 1) * q8::kGroup; k += q8::kFineGroup) {
      __m256i whole[4];
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j) {
        const size_t at = k + 8 * j;
        // A scale of 0 belongs to a row of zeros, or of denormals too small to have one.
        whole[j] = at < n && scale > 0 ? quotients(x + at, n - at, divisor) : _mm256_setzero_si256();
      }
      // Packing saturates, to [-128, 127], within 128-bit lanes, hence the permutation.
      const __m256i packed =
          _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
      const __m256i codes = _mm256_max_epi8(_mm256_permutevar8x32_epi32(packed, in_order), lowest);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q8_row + k), codes);
      const int32_t fine = sum_of_lanes(_mm256_madd_epi16(_mm256_maddubs_epi16(ones8, codes), ones16));
      __builtin_memcpy(q8_row + q8::fine_sums_offset(n) + 4 * (k / q8::kFineGroup), &fine, sizeof fine);
      sum += fine;
    }
    __builtin_memcpy(q8_row + q8::sums_offset(n) + 4 * g, &sum, sizeof sum);
    total += sum;
  }
  __builtin_memcpy(q8_row + q8::scale_offset(n), &scale, sizeof scale);
  __builtin_memcpy(q8_row + q8::total_offset(n), &total, sizeof total);
}

// The upper halves of floats rounded to bfloat16, half to even, in the upper 16 bits; a NaN stays one.
__m256i rounded_to_bf16(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i nearest = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  return _mm256_and_si256(_mm256_blendv_epi8(nearest, quiet, nan),
                          _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
}

static_assert(q8::kFineGroup == 32, "a vector of codes has one fine sum");
static_assert(tile::bf16_position(4) == 4 && tile::bf16_position(5) == 6 && tile::bf16_position(6) == 5 &&
                  tile::bf16_position(7) == 7,
              "the two middle columns of a quad change places");

void round_row(const float* x, size_t n, uint8_t* row) {
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
  for (size_t g = 0; g < bf16_row::groups(n); ++g) {
    __m256 sums = _mm256_setzero_ps();
    for (size_t k = g * bf16_row::kGroup; k < (g + 1) * bf16_row::kGroup; k += 8) {
      const __m256 value = k < n ? load_floats(x + k, n - k) : _mm256_setzero_ps();
      const __m256i rounded = rounded_to_bf16(value);
      // Packing with unsigned saturation keeps 16-bit values as they are.
      const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(rounded, 16), _mm256_setzero_si256());
      const __m128i words =
          _mm_unpacklo_epi64(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(row + 2 * k), _mm_shuffle_epi8(words, order));
      sums = _mm256_add_ps(sums, _mm256_castsi256_ps(rounded));
    }
    const float sum = sum_of_lanes(sums);
    __builtin_memcpy(row + bf16_row::sums_offset(n) + 4 * g, &sum, sizeof sum);
  }
}

__m256 times_up(__m256 passed, const float* up, size_t i, size_t n) {
  return up == nullptr ? passed : _mm256_mul_ps(passed, load_floats(up + i, n - i));
}

void silu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; i += 8) {
    const __m256 g = load_floats(gate + i, n - i);
    const __m256 denominator =
        _mm256_add_ps(_mm256_set1_ps(1.0f), exponential(_mm256_sub_ps(_mm256_setzero_ps(), g)));
    store_floats(y + i, n - i, times_up(_mm256_div_ps(g, denominator), up, i, n));
  }
}

void gelu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; i += 8) {
    const __m256 g = load_floats(gate + i, n - i);
    const __m256 square = _mm256_mul_ps(g, g);
    const __m256 argument =
        _mm256_mul_ps(g, _mm256_fmadd_ps(_mm256_set1_ps(kGeluCubic), square, _mm256_set1_ps(kGeluLinear)));
    const __m256 denominator =
        _mm256_add_ps(_mm256_set1_ps(1.0f), exponential(_mm256_sub_ps(_mm256_setzero_ps(), argument)));
    store_floats(y + i, n - i, times_up(_mm256_div_ps(g, denominator), up, i, n));
  }
}

// tanh(x) = 1 - 2 / (1 + e^2x).
void soft_cap(const float* x, float cap, size_t n, float* y) {
  const __m256 twice = _mm256_set1_ps(2.0f / cap);
  for (size_t i = 0; i < n; i += 8) {
    const __m256 power = exponential(_mm256_mul_ps(load_floats(x + i, n - i), twice));
    const __m256 lost = _mm256_div_ps(_mm256_set1_ps(2.0f * cap), _mm256_add_ps(_mm256_set1_ps(1.0f), power));
    store_floats(y + i, n - i, _mm256_sub_ps(_mm256_set1_ps(cap), lost));
  }
}

void rotate_head(const float* x, const float* cosines, const float* sines, size_t half, float* y) {
  for (size_t i = 0; i < half; i += 8) {
    const size_t left = half - i;
    const __m256 a = load_floats(x + i, left);
    const __m256 b = load_floats(x + half + i, left);
    const __m256 c = load_floats(cosines + i, left);
    const __m256 s = load_floats(sines + i, left);
    store_floats(y + i, left, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    store_floats(y + half + i, left, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
}

float maximum(const float* values, size_t n) {
  __m256 largest = _mm256_set1_ps(values[0]);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) largest = _mm256_max_ps(_mm256_loadu_ps(values + i), largest);
  if (i < n) {
    const __m256i lanes = lanes_below(n - i);
    const __m256 rest = _mm256_maskload_ps(values + i, lanes);
    largest = _mm256_max_ps(_mm256_blendv_ps(largest, rest, _mm256_castsi256_ps(lanes)), largest);
  }
  return largest_lane(largest);
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

}  // namespace tessera::cpu::avx2
