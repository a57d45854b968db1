// Products with scales per group and int8 activations: a code becomes a byte by vpshufb, vpmaddubsw
// multiplies. Sums of a group are whole numbers, exact; scales come in once a group.
#include <immintrin.h>

#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx2/table_codes.h"
#include "backends/cpu/avx2/table_panels.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/q8_row.h"

namespace tessera::cpu::avx2 {

namespace {

constexpr size_t kLine = tile::kLineBytes;
constexpr size_t kUnit = tile::kTableUnitColumns;

// Why no 16-bit lane ever saturates: activations and entries are at most 127 in magnitude, codes at most 15.
constexpr int kLargestActivation = 127;
constexpr int kLargestEntry = 127;
constexpr int kLargestCode = 15;
constexpr int kLargestByte = 128;  // in magnitude
constexpr int kLargestInt16 = 32767;
static_assert(2 * kLargestEntry * kLargestActivation <= kLargestInt16 &&
                  2 * kLargestByte * kLargestActivation <= kLargestInt16,
              "one vpmaddubsw result of entries or bytes fits a 16-bit lane, so it widens at once");
static_assert(static_cast<int>(kUnitQuads) * 2 * kLargestCode * kLargestActivation <= kLargestInt16,
              "the vpmaddubsw results of a unit of codes fit a 16-bit lane");

// The entries t of a table as signed bytes, twice, as vpshufb reads it. Used for tables only.
struct ByteTable {
  __m256i entries;
};

ByteTable byte_table(const float* table) {
  alignas(16) int8_t entries[16];
  for (size_t i = 0; i < 16; ++i) {
    // The bounds, which files keep, keep the products above in theirs whatever the table holds.
    const __m128 steps = _mm_mul_ss(_mm_set_ss(127.0f), _mm_load_ss(table + i));
    const __m128 bounded = _mm_min_ss(_mm_max_ss(steps, _mm_set_ss(-127.0f)), _mm_set_ss(127.0f));
    entries[i] = static_cast<int8_t>(_mm_cvtss_si32(bounded));
  }
  return {_mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(entries)))};
}

// Formats: weights<kQuad>(lines, table) are the bytes of four columns of 8 rows; kSmall says that they are
// unsigned and at most 15, kWide that they may be -128, which has no opposite in a byte.
template <class Codes>
struct TableBytes {
  static constexpr size_t kBits = Codes::kBits;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr bool kSmall = false;
  static constexpr bool kWide = false;
  template <size_t kQuad>
  [[gnu::always_inline]] static __m256i weights(const uint8_t* lines, const ByteTable& table) {
    return _mm256_shuffle_epi8(table.entries, Codes::template codes<kQuad>(lines));
  }
};

template <GroupForm kGroupForm>
struct CodeBytes {
  static constexpr size_t kBits = 4;
  static constexpr GroupForm kForm = kGroupForm;
  static constexpr bool kSmall = true;
  static constexpr bool kWide = false;
  template <size_t kQuad>
  [[gnu::always_inline]] static __m256i weights(const uint8_t* lines, const ByteTable&) {
    return Codes4::codes<kQuad>(lines);
  }
};

// Bytes as they lie in lines: stored ones of 8 bits, and all that were expanded.
template <GroupForm kGroupForm>
struct PlainBytes {
  static constexpr size_t kBits = 8;
  static constexpr size_t kUnitBytes = kUnitQuads * kLine;
  static constexpr GroupForm kForm = kGroupForm;
  static constexpr bool kSmall = has_offsets(kForm);
  static constexpr bool kWide = kForm == GroupForm::bytes;
  template <size_t kQuad>
  [[gnu::always_inline]] static __m256i weights(const uint8_t* lines, const ByteTable&) {
    const __m256i bytes = load_half_line(lines + kQuad * kLine);
    return kSmall ? bytes : _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));  // t + 128 becomes t
  }
};

__m256i broadcast4(const uint8_t* x) {
  int32_t four = 0;
  __builtin_memcpy(&four, x, sizeof four);
  return _mm256_set1_epi32(four);
}

// Makes a sum opaque to the optimizer, which otherwise regroups chains of additions and, short of registers,
// keeps the pieces in memory (GCC 12).
__m256i settled(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

// Adds the products of one quad of columns with T tokens, to 16-bit sums for small weights, else to 32-bit
// ones.
template <class Format, size_t T, size_t kQuad>
[[gnu::always_inline]] inline void add_quad(const uint8_t* lines, const ByteTable& table, const uint8_t* x,
                                            size_t x_stride, __m256i (*sums)[2]) {
#pragma GCC unroll 2
  for (size_t h = 0; h < 2; ++h) {
    const __m256i w = Format::template weights<kQuad>(lines + h * kHalfLine, table);
    const __m256i magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) {
      const __m256i four = broadcast4(x + t * x_stride + 4 * kQuad);
      if constexpr (Format::kSmall) {
        sums[t][h] = settled(_mm256_add_epi16(sums[t][h], _mm256_maddubs_epi16(w, four)));
      } else {
        // The magnitude is taken of the factor that is used again, by the other half or by more tokens,
        // unless that factor alone is sure to have an opposite.
        const __m256i pairs = T == 1 && !Format::kWide
                                  ? _mm256_maddubs_epi16(_mm256_abs_epi8(four), _mm256_sign_epi8(w, four))
                                  : _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, w));
        sums[t][h] = settled(_mm256_add_epi32(sums[t][h], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
      }
    }
  }
}

template <size_t T>
[[gnu::always_inline]] inline void clear(__m256i (*sums)[2]) {
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
}

template <class Format, size_t T>
[[gnu::always_inline]] inline void add_unit(const uint8_t* lines, const ByteTable& table, const uint8_t* x,
                                            size_t x_stride, __m256i (*sums)[2]) {
  __m256i partial[T][2];
  clear<T>(partial);
  __m256i(*to)[2] = Format::kSmall ? partial : sums;
  add_quad<Format, T, 0>(lines, table, x, x_stride, to);
  add_quad<Format, T, 1>(lines, table, x, x_stride, to);
  add_quad<Format, T, 2>(lines, table, x, x_stride, to);
  add_quad<Format, T, 3>(lines, table, x, x_stride, to);
  add_quad<Format, T, 4>(lines, table, x, x_stride, to);
  add_quad<Format, T, 5>(lines, table, x, x_stride, to);
  add_quad<Format, T, 6>(lines, table, x, x_stride, to);
  add_quad<Format, T, 7>(lines, table, x, x_stride, to);
  if constexpr (Format::kSmall) {
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
      for (size_t h = 0; h < 2; ++h) {
        sums[t][h] = _mm256_add_epi32(sums[t][h], _mm256_madd_epi16(partial[t][h], _mm256_set1_epi16(1)));
      }
    }
  }
}

float sum_of_group(const uint8_t* fine_sums, size_t first, size_t columns) {
  int32_t sum = 0;
  for (size_t i = first / kUnit; i < (first + columns) / kUnit; ++i) {
    int32_t fine = 0;
    __builtin_memcpy(&fine, fine_sums + sizeof fine * i, sizeof fine);
    sum += fine;
  }
  return static_cast<float>(sum);
}

template <template <class> class Groups, class Format, size_t T, class Job>
void multiply(const Job& job, const ByteTable& table, size_t token, size_t panel_index) {
  using Panel = Groups<Format>;
  const Panel panel(job, panel_index);
  const uint8_t* x = job.x + token * job.x_stride;
  const size_t fine_sums = q8::fine_sums_offset(job.x_columns);
  __m256 results[T][2];
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) results[t][0] = results[t][1] = _mm256_setzero_ps();
  const size_t groups = job.columns / job.group;
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; ++g) {
    const size_t first = g * job.group;
    const uint8_t* lines = panel.values(g);
    __m256i sums[T][2];
    clear<T>(sums);
#pragma GCC unroll 1
    for (size_t k = 0; k < job.group; k += kUnit, lines += Panel::kUnitBytes) {
      add_unit<Format, T>(lines, table, x + first + k, job.x_stride, sums);
    }
    const GroupScales scales = panel.scales(g);
#pragma GCC unroll 4
    for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 2
      for (size_t h = 0; h < 2; ++h) {
        __m256 d = _mm256_cvtepi32_ps(sums[t][h]);
        __m256 total = _mm256_setzero_ps();
        if constexpr (has_offsets(Panel::kForm))
          total = _mm256_set1_ps(sum_of_group(x + t * job.x_stride + fine_sums, first, job.group));
        if constexpr (Panel::kForm == GroupForm::zero_points)
          d = _mm256_fnmadd_ps(scales.offset[h], total, d);
        results[t][h] = _mm256_fmadd_ps(scales.scale[h], d, results[t][h]);
        if constexpr (Panel::kForm == GroupForm::minimums)
          results[t][h] = _mm256_fmadd_ps(scales.offset[h], total, results[t][h]);
      }
    }
  }
#pragma GCC unroll 4
  for (size_t t = 0; t < T; ++t) {
    float scale = 0;
    __builtin_memcpy(&scale, x + t * job.x_stride + q8::scale_offset(job.x_columns), sizeof scale);
    store_table_sums(job, panel_index, token + t, Panel::kForm == GroupForm::table ? scale / 127.0f : scale,
                     results[t]);
  }
}

template <template <class> class Groups, class Format, class Job>
void product_of(const Job& job, const ByteTable& table) {
  static constexpr void (*kByTokens[])(const Job&, const ByteTable&, size_t, size_t) = {
      multiply<Groups, Format, 1, Job>, multiply<Groups, Format, 2, Job>, multiply<Groups, Format, 3, Job>,
      multiply<Groups, Format, 4, Job>};
  static_assert(sizeof kByTokens / sizeof kByTokens[0] == kTableTokens, "one variant per tile height");
  for_each_table_tile(job, table, kByTokens);
}

template <template <class> class Groups, class Format>
void product(const TableProduct& job) {
  ByteTable table{};
  if constexpr (Format::kForm == GroupForm::table) table = byte_table(job.table);
  product_of<Groups, Format>(job, table);
}

template <GroupForm kForm>
void expanded_form(const ExpandedProduct& job) {
  product_of<ExpandedGroups, PlainBytes<kForm>>(job, ByteTable{});
}

void product_expanded(const ExpandedProduct& job) {
  switch (job.form) {
    case GroupForm::table:
      return expanded_form<GroupForm::table>(job);
    case GroupForm::zero_points:
      return expanded_form<GroupForm::zero_points>(job);
    case GroupForm::minimums:
      return expanded_form<GroupForm::minimums>(job);
    case GroupForm::bytes:
      return expanded_form<GroupForm::bytes>(job);
  }
}

template <class Format, size_t kQuad>
[[gnu::always_inline]] inline void expand_quad(const uint8_t* lines, const ByteTable& table, uint8_t* bytes) {
  for (size_t h = 0; h < kLine; h += kHalfLine) {
    __m256i w = Format::template weights<kQuad>(lines + h, table);
    if constexpr (!Format::kSmall) w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + kQuad * kLine + h), w);
  }
}

template <template <class> class Groups, class Format>
void expand(const uint8_t* panel, size_t columns, size_t group, const float* table,
            const ExpandedPanel& out) {
  ByteTable bytes{};
  if constexpr (Format::kForm == GroupForm::table) bytes = byte_table(table);
  const Groups<Format> groups(panel, group);
  uint8_t* values = out.values;
  for (size_t g = 0; g < columns / group; ++g) {
    const uint8_t* lines = groups.values(g);
    for (size_t k = 0; k < group; k += kUnit) {
      expand_quad<Format, 0>(lines, bytes, values);
      expand_quad<Format, 1>(lines, bytes, values);
      expand_quad<Format, 2>(lines, bytes, values);
      expand_quad<Format, 3>(lines, bytes, values);
      expand_quad<Format, 4>(lines, bytes, values);
      expand_quad<Format, 5>(lines, bytes, values);
      expand_quad<Format, 6>(lines, bytes, values);
      expand_quad<Format, 7>(lines, bytes, values);
      lines += Groups<Format>::kUnitBytes;
      values += kUnitQuads * kLine;
    }
    store_group_scales<Format::kForm>(groups.scales(g), g, out);
  }
}

template <template <class> class Groups, class Format>
constexpr TableCodeKernels kKernels{.product = product<Groups, Format>, .expand = expand<Groups, Format>};

}  // namespace

constinit const TableKernels kTableInt8{
    .code_tokens = SIZE_MAX,  // for any number of tokens expanding first gains 5 % at most
    .codes = {kKernels<StoredGroups, TableBytes<Codes2>>, kKernels<StoredGroups, TableBytes<Codes3>>,
              kKernels<StoredGroups, TableBytes<Codes4>>,
              kKernels<StoredGroups, CodeBytes<GroupForm::zero_points>>,
              kKernels<StoredGroups, PlainBytes<GroupForm::bytes>>,
              kKernels<StoredGroups, CodeBytes<GroupForm::minimums>>,
              kKernels<StoredBlocks, CodeBytes<GroupForm::minimums>>},
    .product_expanded = product_expanded,
};

}  // namespace tessera::cpu::avx2
