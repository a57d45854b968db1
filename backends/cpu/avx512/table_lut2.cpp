// Two bits a code, four codes a byte, through tables of 16 bytes (vpshufb). An index of four bits holds two
// codes, so two tables spare a shift: one reads the lower of them, one the upper.
#include "backends/cpu/avx512/avx512.h"
#include "backends/cpu/avx512/table_bytes.h"

namespace tessera::cpu::avx512 {

namespace {

struct Lut2 {
  static constexpr size_t kBits = 2;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr ByteIndex kLower = byte_index([](unsigned i) { return i & 3; });
  static constexpr ByteIndex kUpper = byte_index([](unsigned i) { return (i >> 2) & 3; });

  __m512i lower;
  __m512i upper;
  explicit Lut2(const float* values) : lower(byte_table(values, kLower)), upper(byte_table(values, kUpper)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&bytes)[4]) const {
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i line = load_line(unit, kHalf);
    const __m512i low = _mm512_and_si512(line, nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(line, 4), nibble);
    bytes[0] = _mm512_shuffle_epi8(lower, low);
    bytes[1] = _mm512_shuffle_epi8(upper, low);
    bytes[2] = _mm512_shuffle_epi8(lower, high);
    bytes[3] = _mm512_shuffle_epi8(upper, high);
  }
};

}  // namespace

constinit const TableCodeKernels kLut2{.product = multiply_codes<Lut2>, .expand = expand_panel<Lut2, 4>};

}  // namespace tessera::cpu::avx512
