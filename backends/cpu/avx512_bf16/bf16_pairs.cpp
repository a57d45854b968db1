// Products of matrices that are both bfloat16: one dot-product instruction where the layers' kernel, whose
// activations are exact, needs two.
#include <immintrin.h>

#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kTokens = 8;

__m512bh load_pairs(const uint32_t* at) {
  __m512bh result;
  __builtin_memcpy(&result, at, sizeof result);
  return result;
}

__m512bh broadcast_pair(const uint32_t* pair) {
  const __m512i all = _mm512_set1_epi32(static_cast<int>(*pair));
  __m512bh result;
  __builtin_memcpy(&result, &all, sizeof result);
  return result;
}

// T rows of x times P panels. Every output is one chain over the pairs in order, whatever T and P are.
template <size_t T, size_t P>
void tile_rows(const Bf16PairProduct& job, size_t token, size_t panel_index) {
  const uint32_t* panel = job.panels + panel_index * job.panel_stride;
  const uint32_t* x = job.x + token * job.x_stride;
  __m512 sums[T][P];
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) sums[t][p] = _mm512_setzero_ps();
  }
#pragma GCC unroll 1
  for (size_t i = 0; i < job.pairs; ++i) {
    __m512bh w[P];
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) w[p] = load_pairs(panel + p * job.panel_stride + i * kRows);
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
      const __m512bh value = broadcast_pair(x + t * job.x_stride + i);
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) sums[t][p] = _mm512_dpbf16_ps(sums[t][p], w[p], value);
    }
  }
#pragma GCC unroll 2
  for (size_t p = 0; p < P; ++p) {
    const size_t n = (panel_index + p) * kRows;
    const size_t left = job.rows - n;
    const auto mask = static_cast<__mmask16>(left >= kRows ? 0xffffu : (1u << left) - 1u);
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
      float* y = job.y + (token + t) * job.y_stride + n;
      __m512 sum = sums[t][p];
      if (job.accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
      _mm512_mask_storeu_ps(y, mask, sum);
    }
  }
}

template <size_t P>
void all_tokens(const Bf16PairProduct& job, size_t panel_index) {
  static constexpr void (*kByTokens[])(const Bf16PairProduct&, size_t, size_t) = {
      tile_rows<1, P>, tile_rows<2, P>, tile_rows<3, P>, tile_rows<4, P>,
      tile_rows<5, P>, tile_rows<6, P>, tile_rows<7, P>, tile_rows<8, P>};
  for (size_t t = 0; t < job.tokens; t += kTokens) {
    const size_t rows = job.tokens - t < kTokens ? job.tokens - t : kTokens;
    kByTokens[rows - 1](job, t, panel_index);
  }
}

void product(const Bf16PairProduct& job) {
  const size_t panels = (job.rows + kRows - 1) / kRows;
  size_t p = 0;
  for (; p + 2 <= panels; p += 2) all_tokens<2>(job, p);
  if (p < panels) all_tokens<1>(job, p);
}

void round_row(const float* row, size_t columns, uint32_t* pairs) {
  for (size_t i = 0; i < columns; i += 16) {
    const size_t left = columns - i;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffffu : (1u << left) - 1u);
    const __m256bh halves = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row + i));
    __m256i words;
    __builtin_memcpy(&words, &halves, sizeof words);
    const size_t used = left >= 16 ? 8 : (left + 1) / 2;
    _mm256_mask_storeu_epi32(pairs + i / 2, static_cast<__mmask8>((1u << used) - 1u), words);
  }
}

}  // namespace

constinit const Bf16PairKernels kBf16Pairs{.product = product, .round_row = round_row};

}  // namespace tessera::cpu::avx512_bf16
