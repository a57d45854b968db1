// Eight bits a code, around 128: bytes are multiplied as they lie.
#include "backends/cpu/avx512/avx512.h"
#include "backends/cpu/avx512/table_products.h"

namespace tessera::cpu::avx512 {

namespace {

struct Int8 {
  static constexpr size_t kBits = 8;
  static constexpr GroupForm kForm = GroupForm::bytes;
  explicit Int8(const float*) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&bytes)[4]) const {
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) bytes[i] = load_line(unit, 4 * kHalf + i);
  }
};

}  // namespace

constinit const TableCodeKernels kInt8{.product = multiply_codes<Int8>, .expand = expand_panel<Int8, 4>};

}  // namespace tessera::cpu::avx512
