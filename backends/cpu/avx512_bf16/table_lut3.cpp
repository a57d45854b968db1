// Three bits a code to bfloat16 values through vpermw, which ignores all but five bits of an index. Six quads
// lie two to a line; the last two are put together from what the three lines have left.
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_bf16/table_bf16_products.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

struct Lut3 {
  static constexpr size_t kBits = 3;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr WordIndex kCode = word_index([](unsigned i) { return i & 7; });
  // A split code's highest bit is left where the third line, shifted by three, has it: at bit 3 or 4.
  static constexpr WordIndex kSixth = word_index([](unsigned i) { return (i & 3) | ((i >> 3) & 1) << 2; });
  static constexpr WordIndex kSeventh = word_index([](unsigned i) { return (i & 3) | ((i >> 4) & 1) << 2; });
  static constexpr int kSelect = 0xca;  // vpternlog: first operand's bits ? second : third

  __m512i table;
  __m512i sixth;
  __m512i seventh;
  explicit Lut3(const float* values)
      : table(word_table(_mm512_loadu_ps(values), kCode)),
        sixth(word_table(_mm512_loadu_ps(values), kSixth)),
        seventh(word_table(_mm512_loadu_ps(values), kSeventh)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&pairs)[8]) const {
    const __m512i first = load_line(unit, 0);
    const __m512i second = load_line(unit, 1);
    if constexpr (kHalf == 0) {
      two_quads(first, pairs);
      two_quads(second, pairs + 4);
    } else {
      const __m512i two = _mm512_set1_epi8(3);
      const __m512i third = load_line(unit, 2);
      const __m512i shifted = _mm512_srli_epi16(third, 3);
      two_quads(third, pairs);
      const __m512i six = _mm512_ternarylogic_epi32(two, _mm512_srli_epi16(first, 6), shifted, kSelect);
      const __m512i seven = _mm512_ternarylogic_epi32(two, _mm512_srli_epi16(second, 6), shifted, kSelect);
      pairs[4] = words_at<0>(six, sixth);
      pairs[5] = words_at<8>(six, sixth);
      pairs[6] = words_at<0>(seven, seventh);
      pairs[7] = words_at<8>(seven, seventh);
    }
  }

 private:
  [[gnu::always_inline]] void two_quads(__m512i line, __m512i* pairs) const {
    pairs[0] = words_at<0>(line, table);
    pairs[1] = words_at<8>(line, table);
    pairs[2] = words_at<3>(line, table);
    pairs[3] = words_at<11>(line, table);
  }
};

}  // namespace

constinit const TableCodeKernels kLut3{.product = multiply_codes_bf16<Lut3>, .expand = expand_panel<Lut3, 8>};

}  // namespace tessera::cpu::avx512_bf16
