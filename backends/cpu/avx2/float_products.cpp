// Float products with 256-bit multiply-adds: 2 x 8 rows of one column times one activation broadcast from
// memory.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx2/partial_vectors.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx2 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kTokens = 6;  // 6 x 2 sums, 2 vectors of weights and one broadcast: 15 of 16 registers

// Rows 0..7 and 8..15 of one column.
struct Column {
  __m256 half[2];
};

// Columns 2i and 2i+1 of a panel as floats. The second of the last pair need not exist: it is read only when
// the caller uses it.
struct F32Panel {
  template <size_t kOdd>
  static Column column(const char* panel, size_t i) {
    const float* at = reinterpret_cast<const float*>(panel) + (2 * i + kOdd) * kRows;
    return {{_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}};
  }
};

struct F16Panel {
  template <size_t kOdd>
  static Column column(const char* panel, size_t i) {
    const char* at = panel + (2 * i + kOdd) * (2 * kRows);
    return {{_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))),
             _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16)))}};
  }
};

struct Bf16Panel {
  // A row's two columns share a dword: the even one is its low half, the odd one its high half.
  template <size_t kOdd>
  static __m256 half(const char* at) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return _mm256_castsi256_ps(
        kOdd == 0 ? _mm256_slli_epi32(both, 16)
                  : _mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  template <size_t kOdd>
  static Column column(const char* panel, size_t i) {
    return {{half<kOdd>(panel + i * 64), half<kOdd>(panel + i * 64 + 32)}};
  }
};

template <size_t T>
[[gnu::always_inline]] inline void add_column(const Column& w, const float* x, size_t x_stride,
                                              __m256 (*sums)[2]) {
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
    const __m256 value = _mm256_set1_ps(x[t * x_stride]);
    sums[t][0] = _mm256_fmadd_ps(w.half[0], value, sums[t][0]);
    sums[t][1] = _mm256_fmadd_ps(w.half[1], value, sums[t][1]);
  }
}

template <class Panel, size_t T>
void tile_rows(const FloatProduct& job, size_t token, size_t panel_index) {
  const char* panel = static_cast<const char*>(job.panels) + panel_index * job.panel_stride;
  const float* x = job.x + token * job.x_stride;
  // One chain per output whatever T is: a token's result must not depend on the tokens that share its batch.
  __m256 sums[T][2];
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_ps();
  const size_t pairs = job.columns / 2;
  size_t i = 0;
#pragma GCC unroll 1
  for (; i + 2 <= pairs; i += 2) {
#pragma GCC unroll 2
    for (size_t j = 0; j < 2; ++j) {
      add_column<T>(Panel::template column<0>(panel, i + j), x + 2 * (i + j), job.x_stride, sums);
      add_column<T>(Panel::template column<1>(panel, i + j), x + 2 * (i + j) + 1, job.x_stride, sums);
    }
  }
  if (i < pairs) {
    add_column<T>(Panel::template column<0>(panel, i), x + 2 * i, job.x_stride, sums);
    add_column<T>(Panel::template column<1>(panel, i), x + 2 * i + 1, job.x_stride, sums);
  }
  if (job.columns % 2 != 0) {
    add_column<T>(Panel::template column<0>(panel, pairs), x + 2 * pairs, job.x_stride, sums);
  }

#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; ++h) {
      const size_t n = panel_index * kRows + 8 * h;
      if (n >= job.rows) break;
      const size_t left = job.rows - n;
      __m256 sum = sums[t][h];
      float* y = job.y + (token + t) * job.y_stride + n;
      if (job.bias != nullptr) sum = _mm256_add_ps(sum, load_floats(job.bias + n, left));
      if (job.accumulate) sum = _mm256_add_ps(sum, load_floats(y, left));
      store_floats(y, left, sum);
    }
  }
}

template <class Panel>
void product(const FloatProduct& job) {
  static constexpr void (*kByTokens[])(const FloatProduct&, size_t, size_t) = {
      tile_rows<Panel, 1>, tile_rows<Panel, 2>, tile_rows<Panel, 3>,
      tile_rows<Panel, 4>, tile_rows<Panel, 5>, tile_rows<Panel, 6>};
  static_assert(sizeof kByTokens / sizeof kByTokens[0] == kTokens, "one variant per tile height");
  const size_t panels = (job.rows + kRows - 1) / kRows;
  for (size_t p = 0; p < panels; ++p) {
    for (size_t t = 0; t < job.tokens;) {
      // Tiles of nearly equal height: 8 tokens become 4 + 4, since weights are converted once per tile.
      const size_t left = job.tokens - t;
      const size_t tiles = (left + kTokens - 1) / kTokens;
      const size_t rows = (left + tiles - 1) / tiles;
      kByTokens[rows - 1](job, t, p);
      t += rows;
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

}  // namespace tessera::cpu::avx2
