// Four bits a code with zero points, four codes a word, to the codes as bfloat16 values through vpermw.
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_bf16/table_bf16_products.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

struct Int4 {
  static constexpr size_t kBits = 4;
  static constexpr bool kZeroPoints = true;
  static constexpr WordIndex kCode = word_index([](unsigned i) { return i & 15; });

  __m512i table;
  explicit Int4(const float*)
      : table(word_table(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), kCode)) {}

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

constinit const TableCodeKernels kInt4{.product = multiply_codes_bf16<Int4>, .expand = expand_panel<Int4, 8>};

}  // namespace tessera::cpu::avx512_bf16
