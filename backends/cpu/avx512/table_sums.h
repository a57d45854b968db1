// Exact parts of the products of table schemes with int8 activations: the dot product and a group's share of
// sum_k x[t][k]. Included by these kernels only.
#pragma once

#include "backends/cpu/avx512/table_panels.h"
#include "graph/q8_row.h"

namespace tessera::cpu::avx512 {

// sum += bytes . four activations at x, in every row. As one instruction with a memory broadcast: compilers
// split it into two, and copy sums from register to register besides.
[[gnu::always_inline]] inline void add_byte_dot(__m512i& sum, __m512i bytes, const uint8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0"
          : "+v"(sum)
          : "v"(bytes), "m"(*reinterpret_cast<const FourOperandBytes*>(x)));
}

// Where the sums of a group of activations lie in a row: one of 128 columns or a fine one of 32, or a pair of
// either.
struct GroupSums {
  size_t first;   // byte offset in the row
  size_t stride;  // bytes from group to group
  bool pair;

  [[gnu::always_inline]] explicit GroupSums(size_t x_columns, size_t group)
      : first(group < q8::kGroup ? q8::fine_sums_offset(x_columns) : q8::sums_offset(x_columns)),
        stride(group == 64 || group == 256 ? 8 : 4),
        pair(stride == 8) {}

  // What a group's dot product begins with: -128 sum_k x[t][k], or 0 with zero points.
  template <bool kZeroPoints>
  [[gnu::always_inline]] __m512i beginning(const uint8_t* row, size_t index) const {
    if constexpr (kZeroPoints) return _mm512_setzero_si512();
    const uint8_t* at = row + first + index * stride;
    __m512i sum = _mm512_set1_epi32(read_whole(at));
    if (pair) sum = _mm512_add_epi32(sum, _mm512_set1_epi32(read_whole(at + 4)));
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, 7));
  }

  // The sum itself, as a float in every row.
  [[gnu::always_inline]] __m512 sum(const uint8_t* row, size_t index) const {
    return _mm512_set1_ps(static_cast<float>(whole_sum(row, index)));
  }

 private:
  [[gnu::always_inline]] int32_t whole_sum(const uint8_t* row, size_t index) const {
    const uint8_t* at = row + first + index * stride;
    return pair ? read_whole(at) + read_whole(at + 4) : read_whole(at);
  }
  [[gnu::always_inline]] static int32_t read_whole(const uint8_t* at) {
    int32_t value = 0;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
  }
};

// What d of a row is multiplied with at the end: an entry of the byte table is 127 times its value.
template <bool kZeroPoints>
[[gnu::always_inline]] inline float row_factor(const uint8_t* row, size_t x_columns) {
  const float scale = read_float(row + q8::scale_offset(x_columns));
  return kZeroPoints ? scale : scale / 127.0f;
}

}  // namespace tessera::cpu::avx512
