// Limits with 256-bit vectors: streaming loads, and chains of vpmaddubsw, vpmaddwd and an addition, the AVX2
// way to multiply bytes into 32-bit sums.
#include "backends/cpu/avx2/avx2.h"

#include <immintrin.h>

namespace tessera::cpu::avx2 {

namespace {

uint64_t read_all(const uint8_t* bytes, size_t count) {
  __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                     _mm256_setzero_si256()};
  for (size_t i = 0; i + 128 <= count; i += 128) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      sums[j] =
          _mm256_xor_si256(sums[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + i + 32 * j)));
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0)) ^
         static_cast<uint64_t>(_mm256_extract_epi64(all, 3));
}

uint64_t multiply_bytes(uint64_t rounds) {
  constexpr size_t kChains = 10;
  __m256i sums[kChains];
#pragma GCC unroll 10
  for (size_t c = 0; c < kChains; ++c) sums[c] = _mm256_set1_epi32(static_cast<int>(c));
  __m256i a = _mm256_set1_epi32(static_cast<int>(rounds));
  const __m256i b = _mm256_set1_epi32(0x01fe02fd);
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 1
  for (uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 10
    for (size_t c = 0; c < kChains; ++c) {
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_xor_si256(a, sums[c]), b);
      sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(pairs, ones));
    }
    a = _mm256_xor_si256(a, b);
  }
#pragma GCC unroll 10
  for (size_t c = 1; c < kChains; ++c) sums[0] = _mm256_add_epi32(sums[0], sums[c]);
  return rounds * kChains * 32 * 2 + (_mm256_extract_epi32(sums[0], 0) == 1 ? 1 : 0);
}

}  // namespace

constinit const LimitLoops kLimitLoops{.read = read_all, .multiply = multiply_bytes};

}  // namespace tessera::cpu::avx2
