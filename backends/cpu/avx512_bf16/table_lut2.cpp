// Two bits a code, eight codes a word, to bfloat16 values through vpermw: an index of five bits holds two
// codes, so two tables read them with one shift.
#include "backends/cpu/avx512_bf16/avx512_bf16.h"
#include "backends/cpu/avx512_bf16/table_bf16_products.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

struct Lut2 {
  static constexpr size_t kBits = 2;
  static constexpr GroupForm kForm = GroupForm::table;
  static constexpr WordIndex kLower = word_index([](unsigned i) { return i & 3; });
  static constexpr WordIndex kUpper = word_index([](unsigned i) { return (i >> 2) & 3; });

  __m512i lower;
  __m512i upper;
  explicit Lut2(const float* values)
      : lower(word_table(_mm512_loadu_ps(values), kLower)),
        upper(word_table(_mm512_loadu_ps(values), kUpper)) {}

  template <size_t kHalf>
  [[gnu::always_inline]] void expand(const uint8_t* unit, __m512i (&pairs)[8]) const {
    const __m512i line = load_line(unit, kHalf);
    pairs[0] = words_at<0>(line, lower);
    pairs[1] = words_at<8>(line, lower);
    pairs[2] = words_at<0>(line, upper);
    pairs[3] = words_at<8>(line, upper);
    pairs[4] = words_at<4>(line, lower);
    pairs[5] = words_at<12>(line, lower);
    pairs[6] = words_at<4>(line, upper);
    pairs[7] = words_at<12>(line, upper);
  }
};

}  // namespace

constinit const TableCodeKernels kLut2{.product = multiply_codes_bf16<Lut2>, .expand = expand_panel<Lut2, 8>};

}  // namespace tessera::cpu::avx512_bf16
