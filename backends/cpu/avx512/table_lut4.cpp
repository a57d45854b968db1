// Four bits a code, two codes a byte, through a table of 16 bytes (vpshufb).
#include "backends/cpu/avx512/avx512.h"
#include "backends/cpu/avx512/table_bytes.h"

namespace tessera::cpu::avx512 {

namespace {

struct Lut4 {
  static constexpr size_t kBits = 4;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr ByteIndex kCode = byte_index([](unsigned i) { return i & 15; });

  __m512i table;
  explicit Lut4(const float* values) : table(byte_table(values, kCode)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&bytes)[4]) const {
    const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; ++i) {
      const __m512i line = load_line(unit, 2 * kHalf + i);
      bytes[2 * i] = _mm512_shuffle_epi8(table, _mm512_and_si512(line, nibble));
      bytes[2 * i + 1] = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(line, 4), nibble));
    }
  }
};

}  // namespace

constinit const TableCodeKernels kLut4{.product = multiply_codes<Lut4>, .expand = expand_panel<Lut4, 4>};

}  // namespace tessera::cpu::avx512
