// Four bits a code with zero points or minimums, four codes a word, to the codes as bfloat16 values through
// vpermw.
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_bf16/table_bf16_products.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

// The codes themselves, whatever their groups have beside a scale.
template <GroupForm kGroupForm>
struct Nibbles {
  static constexpr size_t kBits = 4;
  static constexpr GroupForm kForm = kGroupForm;
  static constexpr WordIndex kCode = word_index([](unsigned i) { return i & 15; });

  __m512i table;
  explicit Nibbles(const float*)
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

using Int4 = Nibbles<GroupForm::zero_points>;
using Int4m = Nibbles<GroupForm::minimums>;
struct Int4k : Int4m {
  static constexpr bool kNested = true;
  using Int4m::Int4m;
};

}  // namespace

constinit const TableCodeKernels kInt4{.product = multiply_codes_bf16<Int4>, .expand = expand_panel<Int4, 8>};
constinit const TableCodeKernels kInt4m{.product = multiply_codes_bf16<Int4m>,
                                        .expand = expand_panel<Int4m, 8>};
constinit const TableCodeKernels kInt4k{.product = multiply_codes_bf16<Int4k>,
                                        .expand = expand_panel<Int4k, 8>};

}  // namespace tessera::cpu::avx512_bf16
