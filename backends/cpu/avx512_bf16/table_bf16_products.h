// The products of codes with bfloat16 activations for all schemes with scales per group, on machines with
// AVX512-BF16. A scheme is one file with a class as in table_products.h, but
//
//   template <size_t kHalf> void expand(const uint8_t* unit, __m512i (&pairs)[8]) const;
//
// gives pairs of bfloat16 values, columns (0, 2) and (1, 3) of every quad: the halves of a dword of codes
// belong to columns two apart, and activations are stored in the same order (tile::bf16_position).
//
// The 32 columns of a unit are one chain of vdpbf16ps, in order, begun with -zero * sum_k x[t][k]; its end
// times the scale is added to the row's sum, and then minimum * sum_k x[t][k], unit by unit. So a token's
// result depends neither on the tile nor on whether the codes were expanded before.
#pragma once

#include "backends/cpu/avx512/table_panels.h"
#include "graph/bf16_row.h"

namespace tessera::cpu::avx512_bf16 {

using namespace avx512;  // the tiles and panels of table_panels.h

// sum += pairs . two activations at x, in every row. As one instruction with a memory broadcast, as
// integer products have it.
[[gnu::always_inline]] inline void add_pair_dot(__m512& sum, __m512i pairs, const uint8_t* x) {
  __asm__("vdpbf16ps %2%{1to16%}, %1, %0"
          : "+v"(sum)
          : "v"(pairs), "m"(*reinterpret_cast<const FourOperandBytes*>(x)));
}

// The beginning of a unit's chain.
template <GroupForm kForm>
[[gnu::always_inline]] inline __m512 begin_unit(__m512 minus_zero, const uint8_t* unit_sum) {
  if constexpr (kForm == GroupForm::zero_points) {
    return _mm512_mul_ps(minus_zero, _mm512_set1_ps(read_float(unit_sum)));
  } else {
    return _mm512_setzero_ps();
  }
}

[[gnu::always_inline]] inline __m512 negated(__m512 v) { return _mm512_sub_ps(_mm512_setzero_ps(), v); }

// The end of a unit's chain.
template <GroupForm kForm>
[[gnu::always_inline]] inline __m512 add_unit(__m512 acc, __m512 chain, __m512 scale, __m512 offset,
                                              const uint8_t* unit_sum) {
  acc = _mm512_fmadd_ps(scale, chain, acc);
  if constexpr (kForm == GroupForm::minimums)
    acc = _mm512_fmadd_ps(offset, _mm512_set1_ps(read_float(unit_sum)), acc);
  return acc;
}

// Where the units of a panel lie, by their index.
template <class Codes>
struct UnitPlaces {
  CodeGroups<Codes> groups;
  size_t group_shift;  // of units

  [[gnu::always_inline]] UnitPlaces(const uint8_t* panel, size_t group)
      : groups(panel, group), group_shift(static_cast<size_t>(__builtin_ctzll(group / kUnit))) {}

  [[gnu::always_inline]] const uint8_t* codes(size_t unit) const {
    const size_t in_group = unit & ((size_t{1} << group_shift) - 1);
    return groups.codes(unit >> group_shift) + in_group * Codes::kBits * kPanelLine;
  }
  [[gnu::always_inline]] __m512 scale(size_t unit) const { return groups.scale(unit >> group_shift); }
  [[gnu::always_inline]] __m512 offset(size_t unit) const { return groups.offset(unit >> group_shift); }
};

// Adds U neighbouring units of T rows to acc, their chains side by side.
template <class Codes, size_t T, size_t U>
[[gnu::always_inline]] inline void add_units(const TableProduct& job, const Codes& codes,
                                             const UnitPlaces<Codes>& places, size_t unit,
                                             const uint8_t* rows, __m512* acc) {
  const uint8_t* x = rows + unit * 2 * kUnit;
  const uint8_t* sums = rows + bf16_row::sums_offset(job.x_columns) + unit * sizeof(float);
  __m512 chain[U][T];
#pragma GCC unroll 4
  for (size_t u = 0; u < U; ++u) {
    __m512 minus_zero = _mm512_setzero_ps();
    if constexpr (Codes::kForm == GroupForm::zero_points) minus_zero = negated(places.offset(unit + u));
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t)
      chain[u][t] = begin_unit<Codes::kForm>(minus_zero, sums + t * job.x_stride + u * sizeof(float));
  }
#pragma GCC unroll 4
  for (size_t u = 0; u < U; ++u) {
    const uint8_t* at = places.codes(unit + u);
    if constexpr (T >= kPrefetchTableFrom) prefetch_table(at, Codes::kBits);
    __m512i pairs[8];
    codes.template expand<0>(at, pairs);
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t)
        add_pair_dot(chain[u][t], pairs[i], x + t * job.x_stride + u * 2 * kUnit + 4 * i);
    }
  }
#pragma GCC unroll 4
  for (size_t u = 0; u < U; ++u) {
    const uint8_t* at = places.codes(unit + u);
    __m512i pairs[8];
    codes.template expand<1>(at, pairs);
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
#pragma GCC unroll 8
      for (size_t t = 0; t < T; ++t)
        add_pair_dot(chain[u][t], pairs[i], x + t * job.x_stride + u * 2 * kUnit + 2 * kHalfUnit + 4 * i);
    }
  }
#pragma GCC unroll 4
  for (size_t u = 0; u < U; ++u) {
    const __m512 scale = places.scale(unit + u);
    __m512 offset = _mm512_setzero_ps();
    if constexpr (Codes::kForm == GroupForm::minimums) offset = places.offset(unit + u);
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t)
      acc[t] = add_unit<Codes::kForm>(acc[t], chain[u][t], scale, offset,
                                      sums + t * job.x_stride + u * sizeof(float));
  }
}

// T rows of activations times one panel.
template <class Codes, size_t T>
void bf16_code_tile(const TableProduct& job, const Codes& codes, size_t token, size_t panel) {
  // A chain of vdpbf16ps advances only every sixth cycle, so few tokens need several.
  constexpr size_t kUnits = T <= 2 ? 4 : T <= 5 ? 2 : 1;
  const uint8_t* rows = job.x + token * job.x_stride;
  const UnitPlaces<Codes> places(job.panels + panel * job.panel_stride, job.group);
  const size_t units = job.columns / kUnit;
  __m512 acc[T];
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) acc[t] = _mm512_setzero_ps();
  size_t unit = 0;
#pragma GCC unroll 1
  for (; unit + kUnits <= units; unit += kUnits)
    add_units<Codes, T, kUnits>(job, codes, places, unit, rows, acc);
  if constexpr (kUnits > 1) {
#pragma GCC unroll 1
    for (; unit < units; ++unit) add_units<Codes, T, 1>(job, codes, places, unit, rows, acc);
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) store_table_panel(job, panel, token + t, acc[t], 1.0f);
}

template <class Codes>
void multiply_codes_bf16(const TableProduct& job) {
  static constexpr TableTileJob<Codes> kByTokens[kTableTile] = {
      bf16_code_tile<Codes, 1>, bf16_code_tile<Codes, 2>, bf16_code_tile<Codes, 3>, bf16_code_tile<Codes, 4>,
      bf16_code_tile<Codes, 5>, bf16_code_tile<Codes, 6>, bf16_code_tile<Codes, 7>, bf16_code_tile<Codes, 8>};
  by_table_tiles<Codes>(job, kByTokens);
}

// 32 words of an index, and the bfloat16 values of a table in their order: at[i] = code_of(i), for a table
// read at five index bits that hold a code in their midst.
struct WordIndex {
  alignas(64) uint16_t at[32];
};

template <class CodeOf>
constexpr WordIndex word_index(CodeOf code_of) {
  WordIndex index{};
  for (unsigned i = 0; i < 32; ++i) index.at[i] = static_cast<uint16_t>(code_of(i));
  return index;
}

[[gnu::always_inline]] inline __m512i word_table(__m512 values, const WordIndex& index) {
  const __m256i words = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(values), 16));
  return _mm512_permutexvar_epi16(_mm512_load_si512(index.at), _mm512_broadcast_i64x4(words));
}

// Values of the codes that begin at bit kShift of every word; vpermw ignores all but five bits.
template <int kShift>
[[gnu::always_inline]] inline __m512i words_at(__m512i line, __m512i table) {
  if constexpr (kShift == 0) return _mm512_permutexvar_epi16(line, table);
  return _mm512_permutexvar_epi16(_mm512_srli_epi16(line, kShift), table);
}

}  // namespace tessera::cpu::avx512_bf16
