// Products with scales per group and bfloat16 activations from panels that were expanded before, for many
// tokens, on machines with AVX512-BF16. Sums are made in the order of table_bf16_products.h.
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_bf16/table_bf16_products.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

constexpr size_t kTokens = 6;
constexpr size_t kPanels = 2;

template <GroupForm kForm, size_t T, size_t P>
void expanded_tile(const ExpandedProduct& job, size_t token, size_t panel) {
  const uint8_t* x = job.x + token * job.x_stride;
  const uint8_t* unit_sum = x + bf16_row::sums_offset(job.x_columns);
  const uint8_t* w = job.values + panel * job.values_stride;
  const size_t groups = job.columns / job.group;
  __m512 acc[T][P];
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) acc[t][p] = _mm512_setzero_ps();
  }
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; ++g) {
    const size_t at = panel * job.scales_stride + g * tile::kPanelRows;
#pragma GCC unroll 1
    for (size_t u = 0; u < job.group; u += kUnit, unit_sum += sizeof(float)) {
      __m512 chain[T][P];
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) {
        __m512 minus_zero = _mm512_setzero_ps();
        if constexpr (kForm == GroupForm::zero_points)
          minus_zero = negated(_mm512_loadu_ps(job.offsets + at + p * job.scales_stride));
#pragma GCC unroll 6
        for (size_t t = 0; t < T; ++t)
          chain[t][p] = begin_unit<kForm>(minus_zero, unit_sum + t * job.x_stride);
      }
#pragma GCC unroll 1
      for (size_t i = 0; i < kUnit / 2; i += 4, x += 16) {
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; ++j, w += kPanelLine) {
          __m512i pairs[P];
#pragma GCC unroll 2
          for (size_t p = 0; p < P; ++p) pairs[p] = _mm512_loadu_si512(w + p * job.values_stride);
#pragma GCC unroll 6
          for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
            for (size_t p = 0; p < P; ++p) add_pair_dot(chain[t][p], pairs[p], x + t * job.x_stride + 4 * j);
          }
        }
      }
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) {
        const __m512 scale = _mm512_loadu_ps(job.scales + at + p * job.scales_stride);
        __m512 offset = _mm512_setzero_ps();
        if constexpr (kForm == GroupForm::minimums)
          offset = _mm512_loadu_ps(job.offsets + at + p * job.scales_stride);
#pragma GCC unroll 6
        for (size_t t = 0; t < T; ++t)
          acc[t][p] = add_unit<kForm>(acc[t][p], chain[t][p], scale, offset, unit_sum + t * job.x_stride);
      }
    }
  }
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) store_table_panel(job, panel + p, token + t, acc[t][p], 1.0f);
  }
}

template <GroupForm kForm, size_t T>
void expanded_rows(const ExpandedProduct& job, size_t token) {
  const size_t panels = (job.rows + tile::kPanelRows - 1) / tile::kPanelRows;
  size_t p = 0;
  for (; p + kPanels <= panels; p += kPanels) expanded_tile<kForm, T, kPanels>(job, token, p);
  if (p < panels) expanded_tile<kForm, T, 1>(job, token, p);
}

template <GroupForm kForm>
void all_tokens(const ExpandedProduct& job) {
  static constexpr void (*kByTokens[kTokens])(const ExpandedProduct&, size_t) = {
      expanded_rows<kForm, 1>, expanded_rows<kForm, 2>, expanded_rows<kForm, 3>,
      expanded_rows<kForm, 4>, expanded_rows<kForm, 5>, expanded_rows<kForm, 6>};
  for (size_t t = 0; t < job.tokens; t += kTokens) {
    const size_t rows = job.tokens - t < kTokens ? job.tokens - t : kTokens;
    kByTokens[rows - 1](job, t);
  }
}

}  // namespace

void product_expanded(const ExpandedProduct& job) {
  switch (job.form) {
    case GroupForm::table:
    case GroupForm::bytes:
      return all_tokens<GroupForm::table>(job);  // values alike
    case GroupForm::zero_points:
      return all_tokens<GroupForm::zero_points>(job);
    case GroupForm::minimums:
      return all_tokens<GroupForm::minimums>(job);
  }
}

}  // namespace tessera::cpu::avx512_bf16
