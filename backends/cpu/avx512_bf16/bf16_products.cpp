// bfloat16 products with vdpbf16ps. Activations stay exact to 16 bits of mantissa: each is split into two
// bfloat16 values, x = high + low, and both are multiplied, so results match the f32 path within float
// rounding.
#include <immintrin.h>

#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kTokens = 8;
constexpr size_t kBlockPairs = 512;  // columns go in blocks of 1024, so the split activations stay in L1

// A block of split activations: one dword per pair of columns, high parts and low parts.
struct SplitRows {
  alignas(64) uint32_t high[kTokens][kBlockPairs];
  alignas(64) uint32_t low[kTokens][kBlockPairs];
};

void split_row(const float* x, size_t columns, uint32_t* high, uint32_t* low) {
  const __m512i top = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const size_t pairs = (columns + 1) / 2;
  for (size_t i = 0; i < pairs; i += 8) {
    const size_t left = columns - 2 * i;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffffu : (1u << left) - 1u);
    const __m512 value = _mm512_maskz_loadu_ps(mask, x + 2 * i);
    // Truncating the high part is enough: the low part takes up what is cut off.
    const __m512 head = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(value), top));
    const __m512 tail = _mm512_sub_ps(value, head);
    const __m256i high_words = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(head), 16));
    const __m256bh low_words = _mm512_cvtneps_pbh(tail);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(high + i), high_words);
    __builtin_memcpy(low + i, &low_words, sizeof low_words);
  }
}

__m512bh broadcast_pair(const uint32_t* pair) {
  const __m512i all = _mm512_set1_epi32(static_cast<int>(*pair));
  __m512bh result;
  __builtin_memcpy(&result, &all, sizeof result);
  return result;
}

__m512bh load_pairs(const char* at) {
  __m512bh result;
  __builtin_memcpy(&result, at, sizeof result);
  return result;
}

template <size_t T>
void add_block(const FloatProduct& job, const SplitRows& split, size_t token, size_t panel_index,
               size_t first_pair, size_t pairs, bool first, bool last) {
  const char* panel = static_cast<const char*>(job.panels) + panel_index * job.panel_stride + first_pair * 64;
  // High and low parts are two chains per output whatever T is: a token's result must not depend on the
  // tokens that share its batch.
  __m512 high[T];
  __m512 low[T];
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) high[t] = low[t] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (size_t i = 0; i < pairs; ++i) {
    const __m512bh w = load_pairs(panel + i * 64);
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
      high[t] = _mm512_dpbf16_ps(high[t], w, broadcast_pair(&split.high[t][i]));
      low[t] = _mm512_dpbf16_ps(low[t], w, broadcast_pair(&split.low[t][i]));
    }
  }

  const size_t n = panel_index * kRows;
  const size_t left = job.rows - n;
  const auto mask = static_cast<__mmask16>(left >= kRows ? 0xffffu : (1u << left) - 1u);
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) {
    __m512 sum = _mm512_add_ps(high[t], low[t]);
    float* y = job.y + (token + t) * job.y_stride + n;
    if (last && job.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, job.bias + n));
    if (!first || job.accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
    _mm512_mask_storeu_ps(y, mask, sum);
  }
}

}  // namespace

void product_bf16(const FloatProduct& job) {
  static constexpr void (*kByTokens[])(const FloatProduct&, const SplitRows&, size_t, size_t, size_t, size_t,
                                       bool, bool) = {add_block<1>, add_block<2>, add_block<3>, add_block<4>,
                                                      add_block<5>, add_block<6>, add_block<7>, add_block<8>};
  SplitRows split;
  const size_t panels = (job.rows + kRows - 1) / kRows;
  const size_t pairs = (job.columns + 1) / 2;
  for (size_t t = 0; t < job.tokens; t += kTokens) {
    const size_t rows = job.tokens - t < kTokens ? job.tokens - t : kTokens;
    for (size_t first = 0; first < pairs; first += kBlockPairs) {
      const size_t block = pairs - first < kBlockPairs ? pairs - first : kBlockPairs;
      const size_t columns = job.columns - 2 * first < 2 * block ? job.columns - 2 * first : 2 * block;
      for (size_t r = 0; r < rows; ++r) {
        split_row(job.x + (t + r) * job.x_stride + 2 * first, columns, split.high[r], split.low[r]);
      }
      for (size_t p = 0; p < panels; ++p) {
        kByTokens[rows - 1](job, split, t, p, first, block, first == 0, first + block == pairs);
      }
    }
  }
}

}  // namespace tessera::cpu::avx512_bf16
