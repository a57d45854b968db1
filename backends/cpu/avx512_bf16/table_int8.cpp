// Eight bits a code, around 128, to bfloat16 values, of which these whole numbers are some. A byte among the
// low bits of 2^23 as a float is 2^23 and as many ones; what is left without 2^23 + 128 has its lower half 0.
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_bf16/table_bf16_products.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

struct Int8 {
  static constexpr size_t kBits = 8;
  static constexpr GroupForm kForm = GroupForm::bytes;
  explicit Int8(const float*) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&pairs)[8]) const {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      const __m512i line = load_line(unit, 4 * kHalf + i);
      pairs[2 * i] = pair(value<0>(line), value<16>(line));
      pairs[2 * i + 1] = pair(value<8>(line), value<24>(line));
    }
  }

 private:
  static constexpr int kMagic = 0x4b000000;  // 2^23
  static constexpr int kAndOr = 0xea;        // vpternlog: (first & second) | third

  template <int kShift>
  [[gnu::always_inline]] static __m512i value(__m512i line) {
    const __m512i shifted = kShift == 0 ? line : _mm512_srli_epi32(line, kShift);
    const __m512i whole =
        _mm512_ternarylogic_epi32(shifted, _mm512_set1_epi32(255), _mm512_set1_epi32(kMagic), kAndOr);
    return _mm512_castps_si512(
        _mm512_sub_ps(_mm512_castsi512_ps(whole), _mm512_set1_ps(8388608.0f + 128.0f)));
  }
  [[gnu::always_inline]] static __m512i pair(__m512i first, __m512i second) {
    return _mm512_or_si512(_mm512_srli_epi32(first, 16), second);
  }
};

}  // namespace

constinit const TableCodeKernels kInt8{.product = multiply_codes_bf16<Int8>, .expand = expand_panel<Int8, 8>};

}  // namespace tessera::cpu::avx512_bf16
