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

  // What a group's dot product begins with: -128 sum_k x[t][k] where bytes lie around 128, else 0.
  template <GroupForm kForm>
  [[gnu::always_inline]] __m512i beginning(const uint8_t* row, size_t index) const {
    if constexpr (has_offsets(kForm)) return _mm512_setzero_si512();
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

// Adds one group: d = dot - zero * sum times its scale, or dot times its scale and sum times its minimum. dot
// holds what bytes around 128 need already.
template <GroupForm kForm>
[[gnu::always_inline]] inline __m512 add_group(__m512 acc, __m512i dot, __m512 sum, __m512 scale,
                                               __m512 offset) {
  __m512 d = _mm512_cvtepi32_ps(dot);
  if constexpr (kForm == GroupForm::zero_points) d = _mm512_fnmadd_ps(offset, sum, d);
  acc = _mm512_fmadd_ps(scale, d, acc);
  if constexpr (kForm == GroupForm::minimums) acc = _mm512_fmadd_ps(offset, sum, acc);
  return acc;
}

// What d of a row is multiplied with at the end: an entry of the byte table is 127 times its value.
template <GroupForm kForm>
[[gnu::always_inline]] inline float row_factor(const uint8_t* row, size_t x_columns) {
  const float scale = read_float(row + q8::scale_offset(x_columns));
  return kForm == GroupForm::table ? scale / 127.0f : scale;
}

}  // namespace tessera::cpu::avx512
