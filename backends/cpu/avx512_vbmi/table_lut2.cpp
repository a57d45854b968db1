// Two bits a code, four codes a byte, through vpermb: an index of six bits holds three codes, so three tables
// read them without a shift.
#include "backends/cpu/avx512/table_bytes.h"
#include "backends/cpu/avx512_vbmi/avx512_vbmi.h"

namespace tessera::cpu::avx512_vbmi {

namespace {

using namespace avx512;

struct Lut2 {
  static constexpr size_t kBits = 2;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr ByteIndex kFirst = byte_index([](unsigned i) { return i & 3; });
  static constexpr ByteIndex kSecond = byte_index([](unsigned i) { return (i >> 2) & 3; });
  static constexpr ByteIndex kThird = byte_index([](unsigned i) { return (i >> 4) & 3; });

  __m512i first;
  __m512i second;
  __m512i third;
  explicit Lut2(const float* values)
      : first(byte_table(values, kFirst)),
        second(byte_table(values, kSecond)),
        third(byte_table(values, kThird)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&bytes)[4]) const {
    const __m512i line = load_line(unit, kHalf);
    bytes[0] = _mm512_permutexvar_epi8(line, first);
    bytes[1] = _mm512_permutexvar_epi8(line, second);
    bytes[2] = _mm512_permutexvar_epi8(line, third);
    bytes[3] = _mm512_permutexvar_epi8(_mm512_srli_epi16(line, 6), first);
  }
};

}  // namespace

constinit const TableCodeKernels kLut2{.product = multiply_codes<Lut2>, .expand = expand_panel<Lut2, 4>};

}  // namespace tessera::cpu::avx512_vbmi
