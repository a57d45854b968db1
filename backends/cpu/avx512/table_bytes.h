// Tables of bytes for the schemes with int8 activations, in the forms that vpshufb and vpermb read. Included
// by these kernels only.
#pragma once

#include "backends/cpu/avx512/table_products.h"

namespace tessera::cpu::avx512 {

// 64 bytes; the bytes of a table are looked up in 16-byte lanes.
struct ByteIndex {
  alignas(64) uint8_t at[64];
};

// at[i] = code_of(i), for a table read at index bits that hold a code in their midst.
template <class CodeOf>
constexpr ByteIndex byte_index(CodeOf code_of) {
  ByteIndex index{};
  for (unsigned i = 0; i < 64; ++i) index.at[i] = static_cast<uint8_t>(code_of(i));
  return index;
}

// bytes[i] = t + 128 with t = 127 * table[index.at[i]].
[[gnu::always_inline]] inline __m512i byte_table(const float* table, const ByteIndex& index) {
  const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(table), _mm512_set1_ps(127.0f)));
  const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(128)));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), _mm512_load_si512(index.at));
}

}  // namespace tessera::cpu::avx512
