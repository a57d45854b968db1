// How the codes of every table scheme come out of the lines of a unit of 32 columns: all there is to a width.
// Included by the AVX2 kernels only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu::avx2 {

inline constexpr size_t kHalfLine = tile::kLineBytes / 2;  // rows 0..7 of a line; rows 8..15 follow
inline constexpr size_t kUnitQuads = tile::kTableUnitColumns / 4;

inline __m256i load_half_line(const uint8_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

// Bits [shift, shift + count) of every byte.
template <int kShift, int kCount>
[[gnu::always_inline]] inline __m256i bits_of_bytes(__m256i bytes) {
  constexpr int kMask = (1 << kCount) - 1;
  if constexpr (kShift > 0) bytes = _mm256_srli_epi16(bytes, kShift);  // the mask drops what crosses over
  return _mm256_and_si256(bytes, _mm256_set1_epi8(kMask));
}

// Each has codes<kQuad>(lines): one code a byte for columns 4 kQuad … 4 kQuad + 3 of a unit and 8 rows, the
// columns of a row adjacent. lines is the unit's first byte for rows 0..7, its 32nd for rows 8..15.
struct Codes2 {
  static constexpr size_t kBits = 2;
  template <size_t kQuad>
  [[gnu::always_inline]] static __m256i codes(const uint8_t* lines) {
    return bits_of_bytes<2 * (kQuad % 4), 2>(load_half_line(lines + kQuad / 4 * tile::kLineBytes));
  }
};

struct Codes3 {
  static constexpr size_t kBits = 3;
  template <size_t kQuad>
  [[gnu::always_inline]] static __m256i codes(const uint8_t* lines) {
    if constexpr (kQuad < 6) {
      return bits_of_bytes<3 * (kQuad % 2), 3>(load_half_line(lines + kQuad / 2 * tile::kLineBytes));
    } else {
      const __m256i low = bits_of_bytes<6, 2>(load_half_line(lines + (kQuad - 6) * tile::kLineBytes));
      const __m256i third = _mm256_srli_epi16(load_half_line(lines + 2 * tile::kLineBytes), kQuad - 2);
      return _mm256_or_si256(low, _mm256_and_si256(third, _mm256_set1_epi8(4)));  // bit kQuad became bit 2
    }
  }
};

struct Codes4 {
  static constexpr size_t kBits = 4;
  template <size_t kQuad>
  [[gnu::always_inline]] static __m256i codes(const uint8_t* lines) {
    return bits_of_bytes<4 * (kQuad % 2), 4>(load_half_line(lines + kQuad / 2 * tile::kLineBytes));
  }
};

static_assert(tile::code_in_unit(2, 3, 21).shift == 2 * (21 / 4 % 4) &&
                  tile::code_in_unit(2, 3, 21).byte == 21 / 16 * tile::kLineBytes + 4 * 3 + 21 % 4 &&
                  tile::code_in_unit(3, 3, 21).shift == 3 && tile::code_in_unit(3, 3, 30).shift == 6 &&
                  tile::code_in_unit(3, 3, 30).byte == tile::kLineBytes + 4 * 3 + 30 % 4 &&
                  tile::code_in_unit(3, 3, 30).high_byte == 2 * tile::kLineBytes + 4 * 3 + 30 % 4 &&
                  tile::code_in_unit(3, 3, 30).high_shift == 7 &&
                  tile::code_in_unit(4, 3, 21).byte == 21 / 8 * tile::kLineBytes + 4 * 3 + 21 % 4 &&
                  tile::code_in_unit(4, 3, 21).shift == 4,
              "codes lie where these functions look for them");

}  // namespace tessera::cpu::avx2
