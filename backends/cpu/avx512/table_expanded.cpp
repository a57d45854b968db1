// Products with scales per group from panels that were expanded to bytes, for many tokens: panels lie in
// cache and serve every tile of tokens.
#include "backends/cpu/avx512/avx512.h"
#include "backends/cpu/avx512/table_sums.h"

namespace tessera::cpu::avx512 {

namespace {

constexpr size_t kTokens = 6;  // 6 x 2 is the fastest tile measured on Zen 4, here too
constexpr size_t kPanels = 2;

template <GroupForm kForm, size_t T, size_t P>
void expanded_tile(const ExpandedProduct& job, size_t token, size_t panel) {
  const uint8_t* rows = job.x + token * job.x_stride;
  const uint8_t* x = rows;
  const uint8_t* w = job.values + panel * job.values_stride;
  const size_t groups = job.columns / job.group;
  const GroupSums sums(job.x_columns, job.group);
  __m512 acc[T][P];
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) acc[t][p] = _mm512_setzero_ps();
  }
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; ++g) {
    __m512i dot[T][P];
#pragma GCC unroll 6
    for (size_t t = 0; t < T; ++t) {
      const __m512i beginning = sums.beginning<kForm>(rows + t * job.x_stride, g);
#pragma GCC unroll 2
      for (size_t p = 0; p < P; ++p) dot[t][p] = beginning;
    }
    const uint8_t* end = x + job.group;
#pragma GCC unroll 1
    for (; x < end; x += 16) {
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j, w += kPanelLine) {
        __m512i bytes[P];
#pragma GCC unroll 2
        for (size_t p = 0; p < P; ++p) bytes[p] = _mm512_loadu_si512(w + p * job.values_stride);
#pragma GCC unroll 6
        for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
          for (size_t p = 0; p < P; ++p) add_byte_dot(dot[t][p], bytes[p], x + t * job.x_stride + 4 * j);
        }
      }
    }
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) {
      const size_t at = (panel + p) * job.scales_stride + g * tile::kPanelRows;
      const __m512 scale = _mm512_loadu_ps(job.scales + at);
      __m512 offset = _mm512_setzero_ps();
      if constexpr (has_offsets(kForm)) offset = _mm512_loadu_ps(job.offsets + at);
#pragma GCC unroll 6
      for (size_t t = 0; t < T; ++t) {
        __m512 sum = _mm512_setzero_ps();
        if constexpr (has_offsets(kForm)) sum = sums.sum(rows + t * job.x_stride, g);
        acc[t][p] = add_group<kForm>(acc[t][p], dot[t][p], sum, scale, offset);
      }
    }
  }
#pragma GCC unroll 6
  for (size_t t = 0; t < T; ++t) {
    const float factor = row_factor<kForm>(rows + t * job.x_stride, job.x_columns);
#pragma GCC unroll 2
    for (size_t p = 0; p < P; ++p) store_table_panel(job, panel + p, token + t, acc[t][p], factor);
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
      return all_tokens<GroupForm::table>(job);
    case GroupForm::zero_points:
      return all_tokens<GroupForm::zero_points>(job);
    case GroupForm::minimums:
      return all_tokens<GroupForm::minimums>(job);
    case GroupForm::bytes:
      return all_tokens<GroupForm::bytes>(job);
  }
}

}  // namespace tessera::cpu::avx512
