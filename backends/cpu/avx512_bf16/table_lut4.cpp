// Four bits a code, four codes a word, to bfloat16 values through vpermw.
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_bf16/table_bf16_products.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

struct Lut4 {
  static constexpr size_t kBits = 4;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr WordIndex kCode = word_index([](unsigned i) { return i & 15; });

  __m512i table;
  explicit Lut4(const float* values) : table(word_table(_mm512_loadu_ps(values), kCode)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&pairs)[8]) const {
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; ++i) {
      const __m512i line = load_line(unit, 2 * kHalf + i);
      pairs[4 * i] = words_at<0>(line, table);
      pairs[4 * i + 1] = words_at<8>(line, table);
      pairs[4 * i + 2] = words_at<4>(line, table);
      pairs[4 * i + 3] = words_at<12>(line, table);
    }
  }
};

}  // namespace

constinit const TableCodeKernels kLut4{.product = multiply_codes_bf16<Lut4>, .expand = expand_panel<Lut4, 8>};

}  // namespace tessera::cpu::avx512_bf16
