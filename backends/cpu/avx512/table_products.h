// The products of codes with int8 activations for all schemes with scales per group: tiling, group loop,
// scales. A scheme is one file with a class
//
//   struct Codes {
//     static constexpr size_t kBits;       // of a code
//     static constexpr GroupForm kForm;
//     static constexpr bool kNested;       // true for int4k alone, otherwise absent
//     explicit Codes(const float* table);  // [16]; only for GroupForm::table not null
//     // The bytes of 16 columns of a unit of codes, in the order of tile::byte_in_panel.
//     template <size_t kHalf> void expand(const uint8_t* unit, __m512i (&bytes)[4]) const;
//   };
//
// in an unnamed namespace, which keeps what is made from it inside that file.
#pragma once

#include "backends/cpu/avx512/table_sums.h"

namespace tessera::cpu::avx512 {

// T rows of activations times one panel.
template <class Codes, size_t T>
void code_tile(const TableProduct& job, const Codes& codes, size_t token, size_t panel) {
  // Few tokens use several chains each, because one vpdpbusd chain advances only every fourth cycle.
  constexpr size_t kChains = T == 1 ? 4 : (T <= 4 ? 2 : 1);
  const uint8_t* rows = job.x + token * job.x_stride;
  const uint8_t* x = rows;
  const CodeGroups<Codes> places(job.panels + panel * job.panel_stride, job.group);
  const size_t groups = job.columns / job.group;
  const size_t code_bytes = tile::table_code_bytes(Codes::kBits, job.group);
  const GroupSums sums(job.x_columns, job.group);
  __m512 acc[T];
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) acc[t] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (size_t g = 0; g < groups; ++g) {
    __m512i dot[kChains][T];
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
      dot[0][t] = sums.template beginning<Codes::kForm>(rows + t * job.x_stride, g);
#pragma GCC unroll 4
      for (size_t c = 1; c < kChains; ++c) dot[c][t] = _mm512_setzero_si512();
    }
    const uint8_t* at = places.codes(g);
    const uint8_t* end = at + code_bytes;
#pragma GCC unroll 1
    for (; at < end; at += Codes::kBits * kPanelLine, x += kUnit) {
      if constexpr (T >= kPrefetchTableFrom) prefetch_table(at, Codes::kBits);
      __m512i bytes[4];
      codes.template expand<0>(at, bytes);
#pragma GCC unroll 4
      for (size_t q = 0; q < 4; ++q) {
#pragma GCC unroll 8
        for (size_t t = 0; t < T; ++t)
          add_byte_dot(dot[q % kChains][t], bytes[q], x + t * job.x_stride + 4 * q);
      }
      codes.template expand<1>(at, bytes);
#pragma GCC unroll 4
      for (size_t q = 0; q < 4; ++q) {
#pragma GCC unroll 8
        for (size_t t = 0; t < T; ++t)
          add_byte_dot(dot[q % kChains][t], bytes[q], x + t * job.x_stride + kHalfUnit + 4 * q);
      }
    }
    const __m512 scale = places.scale(g);
    __m512 offset = _mm512_setzero_ps();
    if constexpr (has_offsets(Codes::kForm)) offset = places.offset(g);
#pragma GCC unroll 8
    for (size_t t = 0; t < T; ++t) {
#pragma GCC unroll 4
      for (size_t c = 1; c < kChains; ++c) dot[0][t] = _mm512_add_epi32(dot[0][t], dot[c][t]);
      __m512 sum = _mm512_setzero_ps();
      if constexpr (has_offsets(Codes::kForm)) sum = sums.sum(rows + t * job.x_stride, g);
      acc[t] = add_group<Codes::kForm>(acc[t], dot[0][t], sum, scale, offset);
    }
  }
#pragma GCC unroll 8
  for (size_t t = 0; t < T; ++t) {
    const float factor = row_factor<Codes::kForm>(rows + t * job.x_stride, job.x_columns);
    store_table_panel(job, panel, token + t, acc[t], factor);
  }
}

template <class Codes>
void multiply_codes(const TableProduct& job) {
  static constexpr TableTileJob<Codes> kByTokens[kTableTile] = {
      code_tile<Codes, 1>, code_tile<Codes, 2>, code_tile<Codes, 3>, code_tile<Codes, 4>,
      code_tile<Codes, 5>, code_tile<Codes, 6>, code_tile<Codes, 7>, code_tile<Codes, 8>};
  by_table_tiles<Codes>(job, kByTokens);
}

}  // namespace tessera::cpu::avx512
