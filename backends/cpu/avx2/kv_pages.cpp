// KV codes back to f32 panels with 256-bit vectors: each dword of a line is one row, shifted down code by
// code.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx2 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kLine = tile::kLineBytes;
constexpr size_t kHalfRows = kRows / 2;

__m256i load_half(const uint8_t* line, size_t half) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + half * (kLine / 2)));
}

// Eight f16 values as floats.
__m256 halves(const uint16_t* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

float half_to_float(const uint16_t* at) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*at))); }

// Column j = 0..3 of a line of signed bytes.
__m256 byte_column(__m256i line, size_t j) {
  const __m128i up = _mm_cvtsi32_si128(static_cast<int>(24 - 8 * j));
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_sll_epi32(line, up), 24));
}

// Column j = 0..7 of a line of 4-bit codes: columns 0..3 are the low nibbles, 4..7 the high ones.
__m256 code_column(__m256i line, size_t j) {
  const __m128i down = _mm_cvtsi32_si128(static_cast<int>(8 * (j % 4) + (j >= 4 ? 4 : 0)));
  return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srl_epi32(line, down), _mm256_set1_epi32(15)));
}

}  // namespace

void expand_k8(const uint8_t* codes, const uint16_t* scales, size_t head_dim, float* out) {
  for (size_t h = 0; h < 2; ++h) {
    const __m256 scale = halves(scales + h * kHalfRows);
    for (size_t k = 0; k < head_dim; k += 4) {
      const __m256i line = load_half(codes + k / 4 * kLine, h);
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j) {
        _mm256_storeu_ps(out + (k + j) * kRows + h * kHalfRows, _mm256_mul_ps(byte_column(line, j), scale));
      }
    }
  }
}

void expand_k4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t head_dim,
               float* out) {
  for (size_t h = 0; h < 2; ++h) {
    const __m256 scale = halves(scales + h * kHalfRows);
    const __m256 minimum = halves(minima + h * kHalfRows);
    for (size_t k = 0; k < head_dim; k += 8) {
      const __m256i line = load_half(codes + k / 8 * kLine, h);
#pragma GCC unroll 8
      for (size_t j = 0; j < 8; ++j) {
        _mm256_storeu_ps(out + (k + j) * kRows + h * kHalfRows,
                         _mm256_fmadd_ps(code_column(line, j), scale, minimum));
      }
    }
  }
}

void expand_v8(const uint8_t* codes, const uint16_t* scales, size_t tokens, float* out) {
  for (size_t t = 0; t < tokens; t += 4, codes += kLine) {
    const __m256i line[2] = {load_half(codes, 0), load_half(codes, 1)};
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      if (t + j >= tokens) break;
      const __m256 scale = _mm256_set1_ps(half_to_float(scales + t + j));
      float* column = out + (t + j) * kRows;
      _mm256_storeu_ps(column, _mm256_mul_ps(byte_column(line[0], j), scale));
      _mm256_storeu_ps(column + kHalfRows, _mm256_mul_ps(byte_column(line[1], j), scale));
    }
  }
}

void expand_v4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t tokens,
               float* out) {
  for (size_t t = 0; t < tokens; t += 8, codes += kLine) {
    const __m256i line[2] = {load_half(codes, 0), load_half(codes, 1)};
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j) {
      if (t + j >= tokens) break;
      const __m256 scale = _mm256_set1_ps(half_to_float(scales + t + j));
      const __m256 minimum = _mm256_set1_ps(half_to_float(minima + t + j));
      float* column = out + (t + j) * kRows;
      _mm256_storeu_ps(column, _mm256_fmadd_ps(code_column(line[0], j), scale, minimum));
      _mm256_storeu_ps(column + kHalfRows, _mm256_fmadd_ps(code_column(line[1], j), scale, minimum));
    }
  }
}

}  // namespace tessera::cpu::avx2
