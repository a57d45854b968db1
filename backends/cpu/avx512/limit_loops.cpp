// Limits with 512-bit vectors: streaming loads, and twelve independent chains of vpdpbusd.
#include "backends/cpu/avx512/avx512.h"

#include <immintrin.h>

namespace tessera::cpu::avx512 {

namespace {

uint64_t read_all(const uint8_t* bytes, size_t count) {
  __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                     _mm512_setzero_si512()};
  for (size_t i = 0; i + 256 <= count; i += 256) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j)
      sums[j] = _mm512_xor_si512(sums[j], _mm512_loadu_si512(bytes + i + 64 * j));
  }
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(all));
}

uint64_t multiply_bytes(uint64_t rounds) {
  constexpr size_t kChains = 12;
  __m512i sums[kChains];
#pragma GCC unroll 12
  for (size_t c = 0; c < kChains; ++c) sums[c] = _mm512_set1_epi32(static_cast<int>(c));
  __m512i a = _mm512_set1_epi32(static_cast<int>(rounds));
  const __m512i b = _mm512_set1_epi32(0x01fe02fd);
#pragma GCC unroll 1
  for (uint64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (size_t c = 0; c < kChains; ++c) sums[c] = _mm512_dpbusd_epi32(sums[c], a, b);
    a = _mm512_xor_si512(a, b);
  }
#pragma GCC unroll 12
  for (size_t c = 1; c < kChains; ++c) sums[0] = _mm512_add_epi32(sums[0], sums[c]);
  // The comparison keeps the sums alive without changing the count in practice.
  return rounds * kChains * 64 * 2 + (_mm512_reduce_add_epi32(sums[0]) == 1 ? 1 : 0);
}

}  // namespace

constinit const LimitLoops kLimitLoops{.read = read_all, .multiply = multiply_bytes};

}  // namespace tessera::cpu::avx512
