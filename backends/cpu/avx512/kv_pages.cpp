// KV codes back to f32 panels with 512-bit vectors: each dword of a line is one row, shifted down code by
// code.
#include <immintrin.h>

#include "backends/cpu/avx512/avx512.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx512 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kLine = tile::kLineBytes;

__m512 halves(const uint16_t* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

float half(const uint16_t* at) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*at))); }

// Column j of a line of signed bytes.
__m512 byte_column(__m512i line, unsigned j) {
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(line, 24 - 8 * j), 24));
}

// The 4-bit codes that start at bit `shift` of every dword.
__m512 code_column(__m512i line, unsigned shift) {
  return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(line, shift), _mm512_set1_epi32(15)));
}

// Bit position of column j = 0 … 7 in a line of 4-bit codes.
constexpr unsigned code_shift(unsigned j) { return 8 * (j % 4) + (j >= 4 ? 4 : 0); }

}  // namespace

void expand_k8(const uint8_t* codes, const uint16_t* scales, size_t head_dim, float* out) {
  const __m512 scale = halves(scales);
  for (size_t k = 0; k < head_dim; k += 4, codes += kLine) {
    const __m512i line = _mm512_loadu_si512(codes);
    for (unsigned j = 0; j < 4; ++j) {
      _mm512_storeu_ps(out + (k + j) * kRows, _mm512_mul_ps(byte_column(line, j), scale));
    }
  }
}

void expand_k4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t head_dim,
               float* out) {
  const __m512 scale = halves(scales);
  const __m512 minimum = halves(minima);
  for (size_t k = 0; k < head_dim; k += 8, codes += kLine) {
    const __m512i line = _mm512_loadu_si512(codes);
    for (unsigned j = 0; j < 8; ++j) {
      _mm512_storeu_ps(out + (k + j) * kRows,
                       _mm512_fmadd_ps(code_column(line, code_shift(j)), scale, minimum));
    }
  }
}

void expand_v8(const uint8_t* codes, const uint16_t* scales, size_t tokens, float* out) {
  for (size_t t = 0; t < tokens; t += 4, codes += kLine) {
    const __m512i line = _mm512_loadu_si512(codes);
    for (unsigned j = 0; j < 4 && t + j < tokens; ++j) {
      const __m512 scale = _mm512_set1_ps(half(scales + t + j));
      _mm512_storeu_ps(out + (t + j) * kRows, _mm512_mul_ps(byte_column(line, j), scale));
    }
  }
}

void expand_v4(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, size_t tokens,
               float* out) {
  for (size_t t = 0; t < tokens; t += 8, codes += kLine) {
    const __m512i line = _mm512_loadu_si512(codes);
    for (unsigned j = 0; j < 8 && t + j < tokens; ++j) {
      const __m512 scale = _mm512_set1_ps(half(scales + t + j));
      const __m512 minimum = _mm512_set1_ps(half(minima + t + j));
      _mm512_storeu_ps(out + (t + j) * kRows,
                       _mm512_fmadd_ps(code_column(line, code_shift(j)), scale, minimum));
    }
  }
}

}  // namespace tessera::cpu::avx512
