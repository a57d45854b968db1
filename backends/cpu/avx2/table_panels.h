// What products with scales per group share whatever their activations: scales of a group of a panel, stored
// or expanded, tiles of tokens, and the end of a panel. Included by the AVX2 kernels only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx2/partial_vectors.h"
#include "backends/cpu/avx2/table_codes.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx2 {

inline constexpr size_t kTableTokens = 4;  // most tokens of a tile: 4 x 2 halves of sums, 16 registers in all

// 8 f16 levels, or 8 whole ones.
inline __m256 halves(const uint8_t* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}
inline __m256 whole_levels(const uint8_t* at) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
}

// Scales and zero points or minimums of rows 0..7 and 8..15 in one group.
struct GroupScales {
  __m256 scale[2];
  __m256 offset[2];  // only with either
};

// Groups of one panel as stored. Format has kBits and kForm.
template <class Format>
class StoredGroups {
 public:
  static constexpr GroupForm kForm = Format::kForm;
  static constexpr size_t kUnitBytes = Format::kBits * tile::kLineBytes;

  StoredGroups(const TableProduct& job, size_t panel)
      : StoredGroups(job.panels + panel * job.panel_stride, job.group) {}
  StoredGroups(const uint8_t* panel, size_t group_columns)
      : first_(panel),
        code_bytes_(tile::table_code_bytes(Format::kBits, group_columns)),
        group_bytes_(tile::table_group_bytes(Format::kBits, group_columns, has_offsets(kForm))) {}

  const uint8_t* values(size_t group) const { return first_ + group * group_bytes_; }
  GroupScales scales(size_t group) const {
    const uint8_t* at = values(group) + code_bytes_;
    GroupScales result{{halves(at), halves(at + 16)}, {}};
    if constexpr (has_offsets(kForm)) {
      result.offset[0] = halves(at + 32);
      result.offset[1] = halves(at + 48);
    }
    return result;
  }

 private:
  const uint8_t* first_;
  size_t code_bytes_;
  size_t group_bytes_;
};

// The same for int4k, whose groups lie in blocks.
template <class Format>
class StoredBlocks {
 public:
  static constexpr GroupForm kForm = Format::kForm;
  static constexpr size_t kUnitBytes = Format::kBits * tile::kLineBytes;

  StoredBlocks(const TableProduct& job, size_t panel) : panel_(job.panels + panel * job.panel_stride) {}
  StoredBlocks(const uint8_t* panel, size_t) : panel_(panel) {}

  const uint8_t* values(size_t group) const {
    return panel_ + tile::nested_unit_byte(group * tile::kNestedGroup);
  }
  GroupScales scales(size_t group) const {
    const size_t block = group / tile::kNestedGroups;
    GroupScales result;
    for (size_t h = 0; h < 2; ++h) {
      const size_t r = 8 * h;
      result.scale[h] = _mm256_mul_ps(halves(panel_ + tile::nested_scale_byte(r, block)),
                                      whole_levels(panel_ + tile::nested_group_scale_byte(r, group)));
      const __m256 minus =
          _mm256_sub_ps(_mm256_setzero_ps(), halves(panel_ + tile::nested_minimum_byte(r, block)));
      result.offset[h] =
          _mm256_mul_ps(minus, whole_levels(panel_ + tile::nested_group_minimum_byte(r, group)));
    }
    return result;
  }

 private:
  const uint8_t* panel_;
};

// Groups of one expanded panel. Format has kUnitBytes and kForm.
template <class Format>
class ExpandedGroups {
 public:
  static constexpr GroupForm kForm = Format::kForm;
  static constexpr size_t kUnitBytes = Format::kUnitBytes;

  ExpandedGroups(const ExpandedProduct& job, size_t panel)
      : first_(job.values + panel * job.values_stride),
        group_bytes_(job.group / tile::kTableUnitColumns * kUnitBytes),
        scales_(job.scales + panel * job.scales_stride),
        offsets_(has_offsets(kForm) ? job.offsets + panel * job.scales_stride : nullptr) {}

  const uint8_t* values(size_t group) const { return first_ + group * group_bytes_; }
  GroupScales scales(size_t group) const {
    const float* at = scales_ + group * tile::kPanelRows;
    GroupScales result{{_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}, {}};
    if constexpr (has_offsets(kForm)) {
      const float* offsets = offsets_ + group * tile::kPanelRows;
      result.offset[0] = _mm256_loadu_ps(offsets);
      result.offset[1] = _mm256_loadu_ps(offsets + 8);
    }
    return result;
  }

 private:
  const uint8_t* first_;
  size_t group_bytes_;
  const float* scales_;
  const float* offsets_;
};

template <GroupForm kForm>
void store_group_scales(const GroupScales& scales, size_t group, const ExpandedPanel& out) {
  for (size_t h = 0; h < 2; ++h) {
    const size_t at = group * tile::kPanelRows + 8 * h;
    _mm256_storeu_ps(out.scales + at, scales.scale[h]);
    if constexpr (has_offsets(kForm)) _mm256_storeu_ps(out.offsets + at, scales.offset[h]);
  }
}

// Ends one panel for one token: y = sums * factor + bias for the rows that exist.
template <class Job>
[[gnu::always_inline]] inline void store_table_sums(const Job& job, size_t panel, size_t token, float factor,
                                                    const __m256* sums) {
#pragma GCC unroll 2
  for (size_t h = 0; h < 2; ++h) {
    const size_t n = panel * tile::kPanelRows + 8 * h;
    if (n >= job.rows) return;
    const size_t left = job.rows - n;
    __m256 y = _mm256_mul_ps(sums[h], _mm256_set1_ps(factor));
    if (job.bias != nullptr) y = _mm256_add_ps(y, load_floats(job.bias + n, left));
    store_floats(job.y + token * job.y_stride + n, left, y);
  }
}

// Calls by_tokens[t - 1](job, table, token, panel) for tiles of t tokens. Every panel meets all tokens while
// it is in cache; tiles are of nearly equal size, since codes are expanded once for the tokens of a tile.
template <class Job, class Table, size_t kMost>
void for_each_table_tile(const Job& job, const Table& table,
                         void (*const (&by_tokens)[kMost])(const Job&, const Table&, size_t, size_t)) {
  const size_t panels = (job.rows + tile::kPanelRows - 1) / tile::kPanelRows;
  for (size_t p = 0; p < panels; ++p) {
    for (size_t t = 0; t < job.tokens;) {
      const size_t left = job.tokens - t;
      const size_t tiles = (left + kMost - 1) / kMost;
      const size_t tokens = (left + tiles - 1) / tiles;
      by_tokens[tokens - 1](job, table, t, p);
      t += tokens;
    }
  }
}

}  // namespace tessera::cpu::avx2
