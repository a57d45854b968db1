// Loads and stores of up to eight floats: what AVX2 has in place of mask registers. Lanes beyond `left` read
// as zero and are neither read from nor written to memory. Included by the AVX2 kernels only.
#pragma once

#include <immintrin.h>

#include <cstddef>

namespace tessera::cpu::avx2 {

// All bits set in the lanes below `left`.
inline __m256i lanes_below(size_t left) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left < 8 ? left : 8)), lanes);
}

inline __m256 load_floats(const float* at, size_t left) {
  return left >= 8 ? _mm256_loadu_ps(at) : _mm256_maskload_ps(at, lanes_below(left));
}

inline void store_floats(float* at, size_t left, __m256 value) {
  if (left >= 8) {
    _mm256_storeu_ps(at, value);
  } else {
    _mm256_maskstore_ps(at, lanes_below(left), value);
  }
}

}  // namespace tessera::cpu::avx2
