// What all products with scales per group share, whatever their activations: how a panel's scales are read,
// how tokens are cut into register tiles and how results are stored. Included by these kernels only; all of
// it is inlined or made from types of one file, so that nothing compiled for a newer machine is shared.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "backends/cpu/kernels/table_kernels.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx512 {

inline constexpr size_t kPanelLine = tile::kLineBytes;
inline constexpr size_t kUnit = tile::kTableUnitColumns;
inline constexpr size_t kHalfUnit = kUnit / 2;  // columns that a format expands at a time
inline constexpr size_t kTableTile = 8;         // tokens whose sums stay in registers beside the codes

// As for the other codes (integer_products.cpp): software prefetches pay from this many tokens on.
inline constexpr size_t kPrefetchTableFrom = 5;
inline constexpr size_t kTablePrefetchBytes = 4096;

struct FourOperandBytes {
  uint8_t at[4];
};

[[gnu::always_inline]] inline float read_float(const uint8_t* at) {
  float value = 0;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

[[gnu::always_inline]] inline __m512i load_line(const uint8_t* unit, size_t line) {
  return _mm512_loadu_si512(unit + line * kPanelLine);
}

// 16 f16 levels, one a row.
[[gnu::always_inline]] inline __m512 load_halves(const uint8_t* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// 16 whole levels, one a row.
[[gnu::always_inline]] inline __m512 load_whole(const uint8_t* at) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}

// Where a panel has its groups, each of whole units, and their levels; what int4k's are products of lies in
// its block. kOffsets: whether there are zero points or minimums.
template <size_t kBits, bool kOffsets>
class FlatGroups {
 public:
  [[gnu::always_inline]] FlatGroups(const uint8_t* panel, size_t columns)
      : panel_(panel),
        code_bytes_(tile::table_code_bytes(kBits, columns)),
        group_bytes_(tile::table_group_bytes(kBits, columns, kOffsets)) {}

  [[gnu::always_inline]] const uint8_t* codes(size_t group) const { return panel_ + group * group_bytes_; }
  [[gnu::always_inline]] __m512 scale(size_t group) const { return load_halves(codes(group) + code_bytes_); }
  [[gnu::always_inline]] __m512 offset(size_t group) const {
    return load_halves(codes(group) + code_bytes_ + 2 * tile::kPanelRows);
  }

 private:
  const uint8_t* panel_;
  size_t code_bytes_;
  size_t group_bytes_;
};

class NestedGroups {
 public:
  [[gnu::always_inline]] NestedGroups(const uint8_t* panel, size_t) : panel_(panel) {}

  [[gnu::always_inline]] const uint8_t* codes(size_t group) const {
    return panel_ + tile::nested_unit_byte(group * tile::kNestedGroup);
  }
  [[gnu::always_inline]] __m512 scale(size_t group) const {
    return _mm512_mul_ps(load_halves(panel_ + tile::nested_scale_byte(0, group / tile::kNestedGroups)),
                         load_whole(panel_ + tile::nested_group_scale_byte(0, group)));
  }
  [[gnu::always_inline]] __m512 offset(size_t group) const {
    const __m512 unit = load_halves(panel_ + tile::nested_minimum_byte(0, group / tile::kNestedGroups));
    const __m512 minus = load_whole(panel_ + tile::nested_group_minimum_byte(0, group));
    return _mm512_mul_ps(_mm512_sub_ps(_mm512_setzero_ps(), unit), minus);
  }

 private:
  const uint8_t* panel_;
};

// Of a class of codes: where its groups lie.
template <class Codes>
struct GroupsOf {
  using Type = FlatGroups<Codes::kBits, has_offsets(Codes::kForm)>;
};
template <class Codes>
requires Codes::kNested struct GroupsOf<Codes> {
  using Type = NestedGroups;
};
template <class Codes>
using CodeGroups = typename GroupsOf<Codes>::Type;

[[gnu::always_inline]] inline void prefetch_table(const uint8_t* at, size_t lines) {
#pragma GCC unroll 4
  for (size_t i = 0; i < lines; ++i) _mm_prefetch(at + kTablePrefetchBytes + i * kPanelLine, _MM_HINT_T1);
}

// Stores one panel of one token, y = acc * factor (+ bias), in the rows that exist.
template <class Job>
[[gnu::always_inline]] inline void store_table_panel(const Job& job, size_t panel, size_t token, __m512 acc,
                                                     float factor) {
  const size_t n = panel * tile::kPanelRows;
  const size_t left = job.rows - n;
  const auto mask = static_cast<__mmask16>(left >= tile::kPanelRows ? 0xffffu : (1u << left) - 1u);
  __m512 y = _mm512_mul_ps(acc, _mm512_set1_ps(factor));
  if (job.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, job.bias + n));
  _mm512_mask_storeu_ps(job.y + token * job.y_stride + n, mask, y);
}

template <class Codes>
using TableTileJob = void (*)(const TableProduct&, const Codes&, size_t token, size_t panel);

// Panels outside, so that each is read from memory once; tokens in nearly equal tiles.
template <class Codes>
void by_table_tiles(const TableProduct& job, const TableTileJob<Codes> (&by_tokens)[kTableTile]) {
  const Codes codes(job.table);
  const size_t panels = (job.rows + tile::kPanelRows - 1) / tile::kPanelRows;
  const size_t tiles = (job.tokens + kTableTile - 1) / kTableTile;
  for (size_t p = 0; p < panels; ++p) {
    size_t token = 0;
    for (size_t i = 0; i < tiles; ++i) {
      const size_t next = job.tokens * (i + 1) / tiles;
      by_tokens[next - token - 1](job, codes, token, p);
      token = next;
    }
  }
}

// One panel to values, a half unit in kVectors vectors.
template <class Codes, size_t kVectors>
void expand_panel(const uint8_t* panel, size_t columns, size_t group, const float* table,
                  const ExpandedPanel& out) {
  const Codes codes(table);
  const CodeGroups<Codes> groups(panel, group);
  uint8_t* values = out.values;
  for (size_t g = 0; g < columns / group; ++g) {
    const uint8_t* at = groups.codes(g);
    for (size_t u = 0; u < group / kUnit; ++u, at += Codes::kBits * kPanelLine) {
      __m512i vectors[kVectors];
      codes.template expand<0>(at, vectors);
#pragma GCC unroll 8
      for (size_t i = 0; i < kVectors; ++i, values += kPanelLine) _mm512_storeu_si512(values, vectors[i]);
      codes.template expand<1>(at, vectors);
#pragma GCC unroll 8
      for (size_t i = 0; i < kVectors; ++i, values += kPanelLine) _mm512_storeu_si512(values, vectors[i]);
    }
    _mm512_storeu_ps(out.scales + g * tile::kPanelRows, groups.scale(g));
    if constexpr (has_offsets(Codes::kForm))
      _mm512_storeu_ps(out.offsets + g * tile::kPanelRows, groups.offset(g));
  }
}

}  // namespace tessera::cpu::avx512
