// What all products of table schemes share, whatever their activations: how a panel's scales are read, how
// tokens are cut into register tiles and how results are stored. Included by these kernels only; all of it is
// inlined or made from types of one file, so that nothing compiled for a newer machine is shared.
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

// The 16 scales or zero points of one group, one a row.
[[gnu::always_inline]] inline __m512 load_halves(const uint8_t* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

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
  uint8_t* values = out.values;
  for (size_t g = 0; g < columns / group; ++g) {
    for (size_t u = 0; u < group / kUnit; ++u, panel += Codes::kBits * kPanelLine) {
      __m512i vectors[kVectors];
      codes.template expand<0>(panel, vectors);
#pragma GCC unroll 8
      for (size_t i = 0; i < kVectors; ++i, values += kPanelLine) _mm512_storeu_si512(values, vectors[i]);
      codes.template expand<1>(panel, vectors);
#pragma GCC unroll 8
      for (size_t i = 0; i < kVectors; ++i, values += kPanelLine) _mm512_storeu_si512(values, vectors[i]);
    }
    _mm512_storeu_ps(out.scales + g * tile::kPanelRows, load_halves(panel));
    panel += 2 * tile::kPanelRows;
    if constexpr (Codes::kZeroPoints) {
      _mm512_storeu_ps(out.zeros + g * tile::kPanelRows, load_halves(panel));
      panel += 2 * tile::kPanelRows;
    }
  }
}

}  // namespace tessera::cpu::avx512
