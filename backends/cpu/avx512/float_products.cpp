// Float products with 512-bit multiply-adds: 16 rows of one column times one activation broadcast from
// memory.
#include <immintrin.h>

#include "backends/cpu/avx512/avx512.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx512 {

namespace {

constexpr size_t kRows = tile::kPanelRows;

struct Columns {
  __m512 even;
  __m512 odd;
};

// Columns 2i and 2i+1 of a panel as floats; single: only column 2i exists.
struct F32Panel {
  static Columns pair(const char* panel, size_t i) {
    const float* at = reinterpret_cast<const float*>(panel) + 2 * i * kRows;
    return {_mm512_loadu_ps(at), _mm512_loadu_ps(at + kRows)};
  }
  static __m512 single(const char* panel, size_t i) {
    return _mm512_loadu_ps(reinterpret_cast<const float*>(panel) + 2 * i * kRows);
  }
};

struct F16Panel {
  static __m512 column(const char* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  static Columns pair(const char* panel, size_t i) {
    return {column(panel + i * 64), column(panel + i * 64 + 32)};
  }
  static __m512 single(const char* panel, size_t i) { return column(panel + i * 64); }
};

struct Bf16Panel {
  static Columns pair(const char* panel, size_t i) {
    const __m512i both = _mm512_loadu_si512(panel + i * 64);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  static __m512 single(const char* panel, size_t i) { return pair(panel, i).even; }
};

template <class Panel, size_t T>
void tile_rows(const FloatProduct& job, size_t token, size_t panel_index) {
  // Even and odd columns are summed apart whatever T is: a token's result must not depend on the tokens that
  // share its batch, or on how far the columns of a KV page are filled.
  constexpr size_t kChains = 2;
  const char* panel = static_cast<const char*>(job.panels) + panel_index * job.panel_stride;
  const float* x = job.x + token * job.x_stride;
  __m512 sums[kChains][T];
#pragma GCC unroll 4
  for (size_t c = 0; c < kChains; ++c) {
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) sums[c][t] = _mm512_setzero_ps();
  }
  const size_t pairs = job.columns / 2;
  size_t i = 0;
#pragma GCC unroll 1
  for (; i + 2 <= pairs; i += 2) {
#pragma GCC unroll 2
    for (size_t j = 0; j < 2; ++j) {
      const Columns w = Panel::pair(panel, i + j);
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t) {
        const float* xt = x + t * job.x_stride + 2 * (i + j);
        __m512& even = sums[0][t];
        even = _mm512_fmadd_ps(w.even, _mm512_set1_ps(xt[0]), even);
        __m512& odd = sums[1][t];
        odd = _mm512_fmadd_ps(w.odd, _mm512_set1_ps(xt[1]), odd);
      }
    }
  }
  if (i < pairs) {
    const Columns w = Panel::pair(panel, i);
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
      const float* xt = x + t * job.x_stride + 2 * i;
      sums[0][t] = _mm512_fmadd_ps(w.even, _mm512_set1_ps(xt[0]), sums[0][t]);
      sums[1][t] = _mm512_fmadd_ps(w.odd, _mm512_set1_ps(xt[1]), sums[1][t]);
    }
  }
  if (job.columns % 2 != 0) {
    const __m512 w = Panel::single(panel, pairs);
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
      sums[0][t] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[t * job.x_stride + 2 * pairs]), sums[0][t]);
    }
  }

  const size_t n = panel_index * kRows;
  const size_t left = job.rows - n;
  const auto mask = static_cast<__mmask16>(left >= kRows ? 0xffffu : (1u << left) - 1u);
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) {
    __m512 sum = _mm512_add_ps(sums[0][t], sums[1][t]);
    float* y = job.y + (token + t) * job.y_stride + n;
    if (job.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, job.bias + n));
    if (job.accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
    _mm512_mask_storeu_ps(y, mask, sum);
  }
}

template <class Panel>
void product(const FloatProduct& job) {
  static constexpr void (*kByTokens[])(const FloatProduct&, size_t, size_t) = {
      tile_rows<Panel, 1>, tile_rows<Panel, 2>, tile_rows<Panel, 3>, tile_rows<Panel, 4>,
      tile_rows<Panel, 5>, tile_rows<Panel, 6>, tile_rows<Panel, 7>, tile_rows<Panel, 8>};
  const size_t panels = (job.rows + kRows - 1) / kRows;
  for (size_t p = 0; p < panels; ++p) {
    for (size_t t = 0; t < job.tokens; t += 8) {
      const size_t rows = job.tokens - t < 8 ? job.tokens - t : 8;
      kByTokens[rows - 1](job, t, p);
    }
  }
}

void product_f32(const FloatProduct& job) { product<F32Panel>(job); }
void product_f16(const FloatProduct& job) { product<F16Panel>(job); }
void product_bf16(const FloatProduct& job) { product<Bf16Panel>(job); }

}  // namespace

constinit const FloatKernels kFloatKernels{
    .product_f32 = product_f32,
    .product_f16 = product_f16,
    .product_bf16 = product_bf16,
    .bf16_pairs = {},
};

}  // namespace tessera::cpu::avx512
