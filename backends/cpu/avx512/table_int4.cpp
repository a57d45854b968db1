// Four bits a code, two codes a byte, with zero points or minimums: the codes themselves are multiplied.
#include "backends/cpu/avx512/avx512.h"
#include "backends/cpu/avx512/table_bytes.h"

namespace tessera::cpu::avx512 {

namespace {

// The codes themselves, whatever their groups have beside a scale.
template <GroupForm kGroupForm>
struct Nibbles {
  static constexpr size_t kBits = 4;
  static constexpr GroupForm kForm = kGroupForm;
  explicit Nibbles(const float*) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&bytes)[4]) const {
    const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; ++i) {
      const __m512i line = load_line(unit, 2 * kHalf + i);
      bytes[2 * i] = _mm512_and_si512(line, nibble);
      bytes[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(line, 4), nibble);
    }
  }
};

using Int4 = Nibbles<GroupForm::zero_points>;
using Int4m = Nibbles<GroupForm::minimums>;
struct Int4k : Int4m {
  static constexpr bool kNested = true;
  using Int4m::Int4m;
};

}  // namespace

constinit const TableCodeKernels kInt4{.product = multiply_codes<Int4>, .expand = expand_panel<Int4, 4>};
constinit const TableCodeKernels kInt4m{.product = multiply_codes<Int4m>, .expand = expand_panel<Int4m, 4>};
constinit const TableCodeKernels kInt4k{.product = multiply_codes<Int4k>, .expand = expand_panel<Int4k, 4>};

}  // namespace tessera::cpu::avx512
