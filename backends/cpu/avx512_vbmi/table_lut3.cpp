// Three bits a code through vpermb, which reads six bits of an index: a code is found among its neighbours'
// bits by a table that ignores them. Six quads lie two to a line; the last two are put together from what the
// three lines have left.
#include "backends/cpu/avx512/table_bytes.h"
#include "backends/cpu/avx512_vbmi/avx512_vbmi.h"

namespace tessera::cpu::avx512_vbmi {

namespace {

using namespace avx512;

struct Lut3 {
  static constexpr size_t kBits = 3;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr ByteIndex kCode = byte_index([](unsigned i) { return i & 7; });
  // A split code's highest bit is left where the third line, shifted by three, has it: at bit 3 or 4.
  static constexpr ByteIndex kSixth = byte_index([](unsigned i) { return (i & 3) | ((i >> 3) & 1) << 2; });
  static constexpr ByteIndex kSeventh = byte_index([](unsigned i) { return (i & 3) | ((i >> 4) & 1) << 2; });
  static constexpr int kSelect = 0xca;  // vpternlog: first operand's bits ? second : third

  __m512i table;
  __m512i sixth;
  __m512i seventh;
  explicit Lut3(const float* values)
      : table(byte_table(values, kCode)),
        sixth(byte_table(values, kSixth)),
        seventh(byte_table(values, kSeventh)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&bytes)[4]) const {
    const __m512i two = _mm512_set1_epi8(3);
    const __m512i first = load_line(unit, 0);
    const __m512i second = load_line(unit, 1);
    if constexpr (kHalf == 0) {
      bytes[0] = _mm512_permutexvar_epi8(first, table);
      bytes[1] = _mm512_permutexvar_epi8(_mm512_srli_epi16(first, 3), table);
      bytes[2] = _mm512_permutexvar_epi8(second, table);
      bytes[3] = _mm512_permutexvar_epi8(_mm512_srli_epi16(second, 3), table);
    } else {
      const __m512i third = load_line(unit, 2);
      const __m512i shifted = _mm512_srli_epi16(third, 3);
      bytes[0] = _mm512_permutexvar_epi8(third, table);
      bytes[1] = _mm512_permutexvar_epi8(shifted, table);
      bytes[2] = _mm512_permutexvar_epi8(
          _mm512_ternarylogic_epi32(two, _mm512_srli_epi16(first, 6), shifted, kSelect), sixth);
      bytes[3] = _mm512_permutexvar_epi8(
          _mm512_ternarylogic_epi32(two, _mm512_srli_epi16(second, 6), shifted, kSelect), seventh);
    }
  }
};

}  // namespace

constinit const TableCodeKernels kLut3{.product = multiply_codes<Lut3>, .expand = expand_panel<Lut3, 4>};

}  // namespace tessera::cpu::avx512_vbmi
