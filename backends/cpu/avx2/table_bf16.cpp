// Products with scales per group and bfloat16 activations, in f32: two vpshufb look up the two bytes of an
// entry, and every dword of the interleaved bytes is two columns of one row. Activations are widened once a
// group.
//
// Every way to a result adds the products of one row in the same order, whatever the tile: one chain over
// columns 0 and 1 of every quad, one over columns 2 and 3, both added at the end of a group.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx2/table_codes.h"
#include "backends/cpu/avx2/table_panels.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/bf16_row.h"

namespace tessera::cpu::avx2 {

namespace {

constexpr size_t kLine = tile::kLineBytes;
constexpr size_t kUnit = tile::kTableUnitColumns;
constexpr size_t kMostGroup = 256;
constexpr size_t kExpandedTokens = 3;  // 3 x 2 halves x 2 chains of sums

static_assert(
    tile::bf16_position(0) == 0 && tile::bf16_position(2) == 1 && tile::bf16_position(1) == 2,
    "activations of columns 0 and 2, and of 1 and 3, are neighbours, as in the interleaved entries");

// The lower and upper bytes of a table's bfloat16 entries, twice, as vpshufb reads them.
struct WordTable {
  __m256i low;
  __m256i high;
};

WordTable word_table(const float* table) {
  alignas(16) uint8_t low[16];
  alignas(16) uint8_t high[16];
  for (size_t i = 0; i < 16; ++i) {
    uint32_t bits = 0;  // entries are bfloat16 values: the lower half is zero
    __builtin_memcpy(&bits, table + i, sizeof bits);
    low[i] = static_cast<uint8_t>(bits >> 16);
    high[i] = static_cast<uint8_t>(bits >> 24);
  }
  return {_mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(low))),
          _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(high)))};
}

// What a code without a table stands for: itself.
constexpr float kCodeValues[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

template <class Codes, GroupForm kGroupForm>
struct TableWords : Codes {
  static constexpr GroupForm kForm = kGroupForm;
};

// Codes of 8 bits, which are values but for the 128 they lie around.
struct ByteValues {
  static constexpr size_t kBits = 8;
  static constexpr GroupForm kForm = GroupForm::bytes;
};

template <GroupForm kGroupForm>
struct ExpandedWords {
  static constexpr size_t kUnitBytes = kUnit * tile::kPanelRows * 2;
  static constexpr GroupForm kForm = kGroupForm;
};

// The first of each pair of bfloat16 values as floats, and the second.
__m256 first_of_pairs(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
__m256 second_of_pairs(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

__m256 broadcast_pair(const float* x) {
  double two = 0;
  __builtin_memcpy(&two, x, sizeof two);
  return _mm256_castpd_ps(_mm256_set1_pd(two));
}

// Activations of one group of T tokens as floats, still in the order of the row.
template <size_t T>
struct WideGroup {
  float values[T][kMostGroup];
};

template <size_t T>
[[gnu::always_inline]] inline void widen(const uint8_t* x, size_t x_stride, size_t columns,
                                         WideGroup<T>& wide) {
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 1
    for (size_t k = 0; k < columns; k += 8) {
      const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + t * x_stride + 2 * k));
      _mm256_storeu_ps(wide.values[t] + k, first_of_pairs(_mm256_cvtepu16_epi32(words)));
    }
  }
}

float sum_of_group(const uint8_t* sums, size_t first, size_t columns) {
  float sum = 0;
  for (size_t i = first / kUnit; i < (first + columns) / kUnit; ++i) {
    float fine = 0;
    __builtin_memcpy(&fine, sums + sizeof fine * i, sizeof fine);
    sum += fine;
  }
  return sum;
}

// Adds one quad of columns of 8 rows times T tokens. A vector of sums holds rows 0, 1, 4 and 5 (or 2, 3, 6
// and 7) with two lanes each: its two chains.
template <class Format, size_t T, size_t kQuad>
[[gnu::always_inline]] inline void add_quad(const uint8_t* lines, const WordTable& table,
                                            const WideGroup<T>& wide, size_t column, __m256 (*sums)[2]) {
  const __m256i codes = Format::template codes<kQuad>(lines);
  const __m256i low = _mm256_shuffle_epi8(table.low, codes);
  const __m256i high = _mm256_shuffle_epi8(table.high, codes);
  const __m256i pairs[2] = {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
  const __m256 first[2] = {first_of_pairs(pairs[0]), first_of_pairs(pairs[1])};
  const __m256 second[2] = {second_of_pairs(pairs[0]), second_of_pairs(pairs[1])};
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) {
    const float* x = wide.values[t] + column + 4 * kQuad;
    const __m256 even = broadcast_pair(x);  // columns 0 and 2
    sums[t][0] = _mm256_fmadd_ps(first[0], even, sums[t][0]);
    sums[t][1] = _mm256_fmadd_ps(first[1], even, sums[t][1]);
    const __m256 odd = broadcast_pair(x + 2);  // columns 1 and 3
    sums[t][0] = _mm256_fmadd_ps(second[0], odd, sums[t][0]);
    sums[t][1] = _mm256_fmadd_ps(second[1], odd, sums[t][1]);
  }
}

// The same for kHalves of 8 rows, one after the other.
template <class Format, size_t T, size_t kHalves, size_t kQuad>
[[gnu::always_inline]] inline void add_halves(const uint8_t* lines, const WordTable& table,
                                              const WideGroup<T>& wide, size_t column, __m256 (*sums)[T][2]) {
  add_quad<Format, T, kQuad>(lines, table, wide, column, sums[0]);
  if constexpr (kHalves == 2) add_quad<Format, T, kQuad>(lines + kHalfLine, table, wide, column, sums[1]);
}

// dots[half][token]: sums over a group for kHalves of 8 rows from the one whose lines begin at `lines`.
template <class Format, size_t T, size_t kHalves>
[[gnu::always_inline]] inline void multiply_group(const uint8_t* lines, size_t columns,
                                                  const WordTable& table, const WideGroup<T>& wide,
                                                  __m256 (*dots)[T]) {
  __m256 sums[kHalves][T][2];
#pragma GCC unroll 2
  for (size_t h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) sums[h][t][0] = sums[h][t][1] = _mm256_setzero_ps();
  }
#pragma GCC unroll 1
  for (size_t k = 0; k < columns; k += kUnit, lines += Format::kBits * kLine) {
    add_halves<Format, T, kHalves, 0>(lines, table, wide, k, sums);
    add_halves<Format, T, kHalves, 1>(lines, table, wide, k, sums);
    add_halves<Format, T, kHalves, 2>(lines, table, wide, k, sums);
    add_halves<Format, T, kHalves, 3>(lines, table, wide, k, sums);
    add_halves<Format, T, kHalves, 4>(lines, table, wide, k, sums);
    add_halves<Format, T, kHalves, 5>(lines, table, wide, k, sums);
    add_halves<Format, T, kHalves, 6>(lines, table, wide, k, sums);
    add_halves<Format, T, kHalves, 7>(lines, table, wide, k, sums);
  }
#pragma GCC unroll 2
  for (size_t h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t)  // adds the two chains of a row and brings rows into order
      dots[h][t] = _mm256_hadd_ps(sums[h][t][0], sums[h][t][1]);
  }
}

// Column kColumn of the quad that a line of bytes around 128 holds, for 8 rows.
template <int kColumn>
[[gnu::always_inline]] inline __m256 byte_column(__m256i line) {
  __m256i bytes = kColumn == 0 ? line : _mm256_srli_epi32(line, 8 * kColumn);
  if constexpr (kColumn < 3) bytes = _mm256_and_si256(bytes, _mm256_set1_epi32(255));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(bytes, _mm256_set1_epi32(128)));
}

// The same as multiply_group for bytes: both chains of a row lie in vectors of their own.
template <size_t T, size_t kHalves>
[[gnu::always_inline]] inline void multiply_bytes(const uint8_t* lines, size_t columns,
                                                  const WideGroup<T>& wide, __m256 (*dots)[T]) {
  __m256 sums[kHalves][T][2];
#pragma GCC unroll 2
  for (size_t h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) sums[h][t][0] = sums[h][t][1] = _mm256_setzero_ps();
  }
#pragma GCC unroll 1
  for (size_t k = 0; k < columns; k += 4, lines += kLine) {
#pragma GCC unroll 2
    for (size_t h = 0; h < kHalves; ++h) {
      const __m256i line = load_half_line(lines + h * kHalfLine);
      const __m256 column0 = byte_column<0>(line);
      const __m256 column2 = byte_column<2>(line);
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
        const float* x = wide.values[t] + k;  // columns 0, 2, 1, 3
        sums[h][t][0] = _mm256_fmadd_ps(column0, _mm256_broadcast_ss(x), sums[h][t][0]);
        sums[h][t][1] = _mm256_fmadd_ps(column2, _mm256_broadcast_ss(x + 1), sums[h][t][1]);
      }
      const __m256 column1 = byte_column<1>(line);
      const __m256 column3 = byte_column<3>(line);
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
        const float* x = wide.values[t] + k;
        sums[h][t][0] = _mm256_fmadd_ps(column1, _mm256_broadcast_ss(x + 2), sums[h][t][0]);
        sums[h][t][1] = _mm256_fmadd_ps(column3, _mm256_broadcast_ss(x + 3), sums[h][t][1]);
      }
    }
  }
#pragma GCC unroll 2
  for (size_t h = 0; h < kHalves; ++h) {
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) dots[h][t] = _mm256_add_ps(sums[h][t][0], sums[h][t][1]);
  }
}

// kHalves of 8 rows of one group, of whichever codes.
template <class Format, size_t T, size_t kHalves>
[[gnu::always_inline]] inline void multiply_codes(const uint8_t* lines, size_t columns,
                                                  const WordTable& table, const WideGroup<T>& wide,
                                                  __m256 (*dots)[T]) {
  if constexpr (Format::kForm == GroupForm::bytes) {
    multiply_bytes<T, kHalves>(lines, columns, wide, dots);
  } else {
    multiply_group<Format, T, kHalves>(lines, columns, table, wide, dots);
  }
}

// Scales the dots of a group, [half][token], and adds them to the results of T tokens.
template <GroupForm kForm, size_t T>
[[gnu::always_inline]] inline void scale_group(const GroupScales& scales, const uint8_t* x_sums,
                                               size_t x_stride, size_t first, size_t columns,
                                               const __m256 (*dots)[T], __m256 (*results)[2]) {
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) {
    __m256 total = _mm256_setzero_ps();
    if constexpr (has_offsets(kForm))
      total = _mm256_set1_ps(sum_of_group(x_sums + t * x_stride, first, columns));
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; ++h) {
      __m256 d = dots[h][t];
      if constexpr (kForm == GroupForm::zero_points) d = _mm256_fnmadd_ps(scales.offset[h], total, d);
      results[t][h] = _mm256_fmadd_ps(scales.scale[h], d, results[t][h]);
      if constexpr (kForm == GroupForm::minimums)
        results[t][h] = _mm256_fmadd_ps(scales.offset[h], total, results[t][h]);
    }
  }
}

template <template <class> class Groups, class Format, size_t T>
void multiply(const TableProduct& job, const WordTable& table, size_t token, size_t panel_index) {
  const Groups<Format> panel(job, panel_index);
  const uint8_t* x = job.x + token * job.x_stride;
  __m256 results[T][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) results[t][0] = results[t][1] = _mm256_setzero_ps();
  const size_t groups = job.columns / job.group;
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; ++g) {
    const size_t first = g * job.group;
    const uint8_t* lines = panel.values(g);
    WideGroup<T> wide;
    widen<T>(x + 2 * first, job.x_stride, job.group, wide);
    __m256 dots[2][T];
    if constexpr (T == 1) {
      // Both halves at once: one chain of additions alone would wait for itself.
      multiply_codes<Format, T, 2>(lines, job.group, table, wide, dots);
    } else {
      multiply_codes<Format, T, 1>(lines, job.group, table, wide, dots);
      multiply_codes<Format, T, 1>(lines + kHalfLine, job.group, table, wide, dots + 1);
    }
    scale_group<Format::kForm, T>(panel.scales(g), x + bf16_row::sums_offset(job.x_columns), job.x_stride,
                                  first, job.group, dots, results);
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) store_table_sums(job, panel_index, token + t, 1.0f, results[t]);
}

template <GroupForm kForm>
WordTable words_of(const float* table) {
  if constexpr (kForm == GroupForm::bytes) return WordTable{};
  return word_table(kForm == GroupForm::table ? table : kCodeValues);
}

template <template <class> class Groups, class Format>
void product(const TableProduct& job) {
  static constexpr void (*kByTokens[])(const TableProduct&, const WordTable&, size_t, size_t) = {
      multiply<Groups, Format, 1>, multiply<Groups, Format, 2>, multiply<Groups, Format, 3>,
      multiply<Groups, Format, 4>};
  static_assert(sizeof kByTokens / sizeof kByTokens[0] == kTableTokens, "one variant per tile height");
  for_each_table_tile(job, words_of<Format::kForm>(job.table), kByTokens);
}

struct NoTable {};

// From an expanded panel, where a dword holds columns 0 and 2, or 1 and 3, of one row.
template <GroupForm kForm, size_t T>
void multiply_expanded(const ExpandedProduct& job, const NoTable&, size_t token, size_t panel_index) {
  const ExpandedGroups<ExpandedWords<kForm>> panel(job, panel_index);
  const uint8_t* x = job.x + token * job.x_stride;
  __m256 results[T][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) results[t][0] = results[t][1] = _mm256_setzero_ps();
  const size_t groups = job.columns / job.group;
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; ++g) {
    const size_t begin = g * job.group;
    WideGroup<T> wide;
    widen<T>(x + 2 * begin, job.x_stride, job.group, wide);
    const uint8_t* line = panel.values(g);
    __m256 sums[T][2][2];  // [half][chain]
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t)
      sums[t][0][0] = sums[t][0][1] = sums[t][1][0] = sums[t][1][1] = _mm256_setzero_ps();
#pragma GCC unroll 1
    for (size_t k = 0; k < job.group; k += 2, line += kLine) {
      const __m256 first[2] = {first_of_pairs(load_half_line(line)),
                               first_of_pairs(load_half_line(line + kHalfLine))};
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
        const __m256 even = _mm256_broadcast_ss(wide.values[t] + k);
        sums[t][0][0] = _mm256_fmadd_ps(first[0], even, sums[t][0][0]);
        sums[t][1][0] = _mm256_fmadd_ps(first[1], even, sums[t][1][0]);
      }
      const __m256 second[2] = {second_of_pairs(load_half_line(line)),
                                second_of_pairs(load_half_line(line + kHalfLine))};
#pragma GCC unroll 4
      for (size_t t = 0; t < T; ++t) {
        const __m256 odd = _mm256_broadcast_ss(wide.values[t] + k + 1);
        sums[t][0][1] = _mm256_fmadd_ps(second[0], odd, sums[t][0][1]);
        sums[t][1][1] = _mm256_fmadd_ps(second[1], odd, sums[t][1][1]);
      }
    }
    __m256 dots[2][T];
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) {
      dots[0][t] = _mm256_add_ps(sums[t][0][0], sums[t][0][1]);
      dots[1][t] = _mm256_add_ps(sums[t][1][0], sums[t][1][1]);
    }
    scale_group<kForm, T>(panel.scales(g), x + bf16_row::sums_offset(job.x_columns), job.x_stride, begin,
                          job.group, dots, results);
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) store_table_sums(job, panel_index, token + t, 1.0f, results[t]);
}

template <GroupForm kForm>
void product_of_expanded(const ExpandedProduct& job) {
  static constexpr void (*kByTokens[])(const ExpandedProduct&, const NoTable&, size_t, size_t) = {
      multiply_expanded<kForm, 1>, multiply_expanded<kForm, 2>, multiply_expanded<kForm, 3>};
  static_assert(sizeof kByTokens / sizeof kByTokens[0] == kExpandedTokens, "one variant per tile height");
  for_each_table_tile(job, NoTable{}, kByTokens);
}

void product_expanded(const ExpandedProduct& job) {
  switch (job.form) {
    case GroupForm::table:
    case GroupForm::bytes:
      return product_of_expanded<GroupForm::table>(job);  // values alike
    case GroupForm::zero_points:
      return product_of_expanded<GroupForm::zero_points>(job);
    case GroupForm::minimums:
      return product_of_expanded<GroupForm::minimums>(job);
  }
}

// The upper halves of floats whose lower ones are 0, as neighbours.
[[gnu::always_inline]] inline __m256i pair_of(__m256 first, __m256 second) {
  return _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(first), 16), _mm256_castps_si256(second));
}

template <class Format, size_t kQuad>
[[gnu::always_inline]] inline void expand_quad(const uint8_t* lines, const WordTable& table, uint8_t* words) {
  for (size_t h = 0; h < kLine; h += kHalfLine) {
    __m256i even;
    __m256i odd;
    if constexpr (Format::kForm == GroupForm::bytes) {
      const __m256i line = load_half_line(lines + kQuad * kLine + h);
      even = pair_of(byte_column<0>(line), byte_column<2>(line));
      odd = pair_of(byte_column<1>(line), byte_column<3>(line));
    } else {
      const __m256i codes = Format::template codes<kQuad>(lines + h);
      const __m256i low = _mm256_shuffle_epi8(table.low, codes);
      const __m256i high = _mm256_shuffle_epi8(table.high, codes);
      const __m256i upper = _mm256_set1_epi16(static_cast<int16_t>(0xff00));
      even = _mm256_or_si256(_mm256_andnot_si256(upper, low), _mm256_slli_epi16(high, 8));
      odd = _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_and_si256(upper, high));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + 2 * kQuad * kLine + h), even);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + (2 * kQuad + 1) * kLine + h), odd);
  }
}

template <template <class> class Groups, class Format>
void expand(const uint8_t* panel, size_t columns, size_t group, const float* table,
            const ExpandedPanel& out) {
  const WordTable words = words_of<Format::kForm>(table);
  const Groups<Format> groups(panel, group);
  uint8_t* values = out.values;
  for (size_t g = 0; g < columns / group; ++g) {
    const uint8_t* lines = groups.values(g);
    for (size_t k = 0; k < group; k += kUnit) {
      expand_quad<Format, 0>(lines, words, values);
      expand_quad<Format, 1>(lines, words, values);
      expand_quad<Format, 2>(lines, words, values);
      expand_quad<Format, 3>(lines, words, values);
      expand_quad<Format, 4>(lines, words, values);
      expand_quad<Format, 5>(lines, words, values);
      expand_quad<Format, 6>(lines, words, values);
      expand_quad<Format, 7>(lines, words, values);
      lines += Groups<Format>::kUnitBytes;
      values += ExpandedWords<Format::kForm>::kUnitBytes;
    }
    store_group_scales<Format::kForm>(groups.scales(g), g, out);
  }
}

template <template <class> class Groups, class Format>
constexpr TableCodeKernels kKernels{.product = product<Groups, Format>, .expand = expand<Groups, Format>};

}  // namespace

constinit const TableKernels kTableBf16{
    .code_tokens = 16,  // at 64 tokens expanding first is 10 % faster, at 16 as fast
    .codes = {kKernels<StoredGroups, TableWords<Codes2, GroupForm::table>>,
              kKernels<StoredGroups, TableWords<Codes3, GroupForm::table>>,
              kKernels<StoredGroups, TableWords<Codes4, GroupForm::table>>,
              kKernels<StoredGroups, TableWords<Codes4, GroupForm::zero_points>>,
              kKernels<StoredGroups, ByteValues>,
              kKernels<StoredGroups, TableWords<Codes4, GroupForm::minimums>>,
              kKernels<StoredBlocks, TableWords<Codes4, GroupForm::minimums>>},
    .product_expanded = product_expanded,
};

}  // namespace tessera::cpu::avx2
