// Three bits a code through a table of 16 bytes (vpshufb), its upper half a copy of the lower. Six quads lie
// two to a line; the last two are put together from what the three lines have left.
#include "backends/cpu/avx512/avx512.h"
#include "backends/cpu/avx512/table_bytes.h"

namespace tessera::cpu::avx512 {

namespace {

struct Lut3 {
  static constexpr size_t kBits = 3;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr ByteIndex kCode = byte_index([](unsigned i) { return i & 7; });
  // A split code's highest bit is left where the third line, shifted by three, has it: at bit 3.
  static constexpr ByteIndex kSplit = byte_index([](unsigned i) { return (i & 3) | ((i >> 3) & 1) << 2; });
  static constexpr int kSelect = 0xca;  // vpternlog: first operand's bits ? second : third

  __m512i table;
  __m512i split;
  explicit Lut3(const float* values) : table(byte_table(values, kCode)), split(byte_table(values, kSplit)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&bytes)[4]) const {
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i two = _mm512_set1_epi8(3);
    const __m512i first = load_line(unit, 0);
    const __m512i second = load_line(unit, 1);
    if constexpr (kHalf == 0) {
      bytes[0] = _mm512_shuffle_epi8(table, _mm512_and_si512(first, nibble));
      bytes[1] = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(first, 3), nibble));
      bytes[2] = _mm512_shuffle_epi8(table, _mm512_and_si512(second, nibble));
      bytes[3] = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(second, 3), nibble));
    } else {
      const __m512i third = load_line(unit, 2);
      const __m512i shifted = _mm512_srli_epi16(third, 3);
      const __m512i sixth = _mm512_ternarylogic_epi32(two, _mm512_srli_epi16(first, 6), shifted, kSelect);
      const __m512i seventh =
          _mm512_ternarylogic_epi32(two, _mm512_srli_epi16(second, 6), _mm512_srli_epi16(third, 4), kSelect);
      bytes[0] = _mm512_shuffle_epi8(table, _mm512_and_si512(third, nibble));
      bytes[1] = _mm512_shuffle_epi8(table, _mm512_and_si512(shifted, nibble));
      bytes[2] = _mm512_shuffle_epi8(split, _mm512_and_si512(sixth, nibble));
      bytes[3] = _mm512_shuffle_epi8(split, _mm512_and_si512(seventh, nibble));
    }
  }
};

}  // namespace

constinit const TableCodeKernels kLut3{.product = multiply_codes<Lut3>, .expand = expand_panel<Lut3, 4>};

}  // namespace tessera::cpu::avx512
