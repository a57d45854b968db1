// Products with scales per group of every kernel table this machine can run, straight from codes and from
// expanded panels, against statements of the job made here from the index maps alone: with int8 activations
// to the last bit, with bfloat16 ones within rounding bounds of float64.
#include <doctest/doctest.h>

#include <algorithm>

#include "gguf-like-format/float_types.h"
#include "graph/bf16_row.h"
#include "tests/unit/kernel_cases.h"

using namespace tessera;
using namespace tessera::kernel_cases;

namespace {

constexpr size_t kRows = tile::kPanelRows;
constexpr size_t kUnit = tile::kTableUnitColumns;

enum class Content { random, largest, alternating, zero };

struct TableCase {
  bool int8 = true;
  cpu::TableCodes codes = cpu::kLut4;
  size_t group = 128;
  Content content = Content::random;
  size_t rows = 0;
  size_t columns = 0;  // of x; stored ones are padded to the group, or to its block
  size_t tokens = 0;
  bool bias = false;

  size_t bits() const {
    return codes == cpu::kLut2 ? 2 : codes == cpu::kLut3 ? 3 : codes == cpu::kInt8 ? 8 : 4;
  }
  cpu::GroupForm form() const {
    switch (codes) {
      case cpu::kInt4:
        return cpu::GroupForm::zero_points;
      case cpu::kInt8:
        return cpu::GroupForm::bytes;
      case cpu::kInt4m:
      case cpu::kInt4k:
        return cpu::GroupForm::minimums;
      default:
        return cpu::GroupForm::table;
    }
  }
  bool table() const { return form() == cpu::GroupForm::table; }
  bool nested() const { return codes == cpu::kInt4k; }
  bool offsets() const { return cpu::has_offsets(form()); }
  size_t stored_columns() const { return tile::round_up(columns, nested() ? tile::kNestedBlock : group); }
  size_t groups() const { return stored_columns() / group; }
  size_t panels() const { return (rows + kRows - 1) / kRows; }
  size_t panel_bytes() const {
    return nested() ? stored_columns() / tile::kNestedBlock * tile::kNestedBlockBytes
                    : groups() * tile::table_group_bytes(bits(), group, offsets());
  }
  size_t unit_byte(size_t column) const {
    return nested() ? tile::nested_unit_byte(column)
                    : tile::table_unit_byte(bits(), group, offsets(), column);
  }
  size_t value_bytes() const { return int8 ? 1 : 2; }
  size_t row_stride() const { return int8 ? q8::row_stride(columns) : bf16_row::row_stride(columns); }
  size_t row_bytes() const {  // up to the last sum
    return int8 ? q8::fine_sums_offset(columns) + 4 * q8::fine_groups(columns)
                : bf16_row::sums_offset(columns) + 4 * bf16_row::groups(columns);
  }
  const cpu::TableKernels& kernels(const cpu::Kernels& table) const {
    return int8 ? table.table_int8 : table.table_bf16;
  }
};

// A matrix as the format stores it and what its parts mean; rows beyond the last exist and hold anything.
struct TableMatrix {
  std::vector<unsigned> codes;  // [padded rows][stored columns]
  std::vector<float> scales;    // [padded rows][groups]
  std::vector<float> offsets;   // zero points or minimums
  float table[16] = {};         // as stored
  size_t panel_stride = 0;
  std::vector<uint8_t> stored;

  // An entry as kernels multiply with it: t with int8 activations, or the value; the code without a table,
  // less 128 where it is a byte.
  double entry(const TableCase& test, unsigned code) const {
    if (!test.table())
      return static_cast<double>(code) - (test.form() == cpu::GroupForm::bytes ? 128.0 : 0.0);
    return test.int8 ? std::nearbyint(127.0 * double{table[code]}) : double{table[code]};
  }
};

void store_half(uint8_t* at, float value) {
  const uint16_t half = f32_to_f16(value);
  std::memcpy(at, &half, sizeof half);
}

float random_half(Random& random, float deviation) {
  return f16_to_f32(f32_to_f16(normal(random, deviation)));
}

float load_half(const uint8_t* at) {
  uint16_t half = 0;
  std::memcpy(&half, at, sizeof half);
  return f16_to_f32(half);
}

// Of one group of a row of int4k; the first group of a block brings the levels of the block, of which the
// arguments are multiples.
void put_nested_levels(Random& random, uint8_t* panel, size_t r, size_t g, float scale, float minimum,
                       TableMatrix& matrix) {
  uint8_t* d = panel + tile::nested_scale_byte(r, g / tile::kNestedGroups);
  uint8_t* dmin = panel + tile::nested_minimum_byte(r, g / tile::kNestedGroups);
  if (g % tile::kNestedGroups == 0) {
    store_half(d, scale);
    store_half(dmin, minimum);
  }
  const auto s = static_cast<uint8_t>(pick(random, 0, 255));
  const auto m = static_cast<uint8_t>(pick(random, 0, 255));
  panel[tile::nested_group_scale_byte(r, g)] = s;
  panel[tile::nested_group_minimum_byte(r, g)] = m;
  matrix.scales.push_back(load_half(d) * static_cast<float>(s));
  matrix.offsets.push_back(-load_half(dmin) * static_cast<float>(m));
}

TableMatrix make_matrix(Random& random, const TableCase& test) {
  TableMatrix matrix;
  const size_t bits = test.bits();
  const unsigned entries = 1u << bits;
  const size_t columns = test.stored_columns();
  const size_t padded = test.panels() * kRows;
  for (unsigned i = 0; i < entries && test.table(); ++i) {
    const auto whole = static_cast<float>(pick(random, 0, 254)) - 127.0f;
    matrix.table[i] = test.int8 ? whole / 127.0f : bf16_to_f32(f32_to_bf16(normal(random)));
  }
  if (test.content != Content::random && test.table()) {
    matrix.table[0] = -1;
    matrix.table[entries - 1] = 1;
  }
  matrix.panel_stride = test.panel_bytes() + (pick(random, 0, 1) == 0 ? 0 : pick(random, 1, 100));
  matrix.stored.assign((test.panels() - 1) * matrix.panel_stride + test.panel_bytes(), 0);
  for (size_t n = 0; n < padded; ++n) {
    uint8_t* panel = matrix.stored.data() + n / kRows * matrix.panel_stride;
    for (size_t g = 0; g < test.groups(); ++g) {
      const bool empty = test.content == Content::zero || pick(random, 0, 19) == 0;
      const float scale = empty ? 0.0f : random_half(random, 0.02f);
      const float offset = test.form() == cpu::GroupForm::minimums ? random_half(random, 0.1f)
                                                                   : std::fabs(random_half(random, 5.0f));
      const size_t r = n % kRows;
      if (test.nested()) {
        put_nested_levels(random, panel, r, g, scale / 16, offset / 16, matrix);
        continue;
      }
      matrix.scales.push_back(scale);
      matrix.offsets.push_back(offset);
      store_half(panel + tile::table_scale_byte(bits, test.group, test.offsets(), r, g), scale);
      if (test.offsets()) store_half(panel + tile::table_zero_byte(bits, test.group, r, g), offset);
    }
    for (size_t k = 0; k < columns; ++k) {
      auto code = static_cast<unsigned>(pick(random, 0, entries - 1));
      if (test.content == Content::largest) code = entries - 1;
      if (test.content == Content::alternating) code = (n + k) % 2 == 0 ? entries - 1 : 0;
      matrix.codes.push_back(code);
      uint8_t* unit = panel + test.unit_byte(k);
      const tile::CodeBits at = tile::code_in_unit(bits, n % kRows, k % kUnit);
      unit[at.byte] = static_cast<uint8_t>(unit[at.byte] | (code & ((1u << at.low) - 1)) << at.shift);
      if (at.low < bits)
        unit[at.high_byte] = static_cast<uint8_t>(unit[at.high_byte] | (code >> at.low) << at.high_shift);
    }
  }
  return matrix;
}

// Rows as q8_row.h and bf16_row.h lay them out, made here and not by a kernel.
struct Activations {
  std::vector<double> values;  // [tokens][stored columns]: whole numbers with int8; 0 beyond the last column
  std::vector<float> scales;   // [tokens], int8 only
  size_t stride = 0;
  std::vector<uint8_t> stored;
};

Activations make_activations(Random& random, const TableCase& test) {
  Activations x;
  x.stride = test.row_stride() + (pick(random, 0, 1) == 0 ? 0 : pick(random, 1, 70));
  x.stored.assign((test.tokens - 1) * x.stride + test.row_bytes(), 0);
  const size_t padded = q8::padded_columns(test.columns);
  REQUIRE(padded == bf16_row::padded_columns(test.columns));
  for (size_t t = 0; t < test.tokens; ++t) {
    uint8_t* row = x.stored.data() + t * x.stride;
    std::vector<double> sums(padded / kUnit, 0.0);
    double total = 0;
    for (size_t k = 0; k < test.stored_columns(); ++k) {
      double value = 0;
      if (k < test.columns && test.int8) {
        value = static_cast<double>(pick(random, 0, 254)) - 127;
        if (test.content == Content::largest) value = t % 2 == 0 ? 127 : -127;
        if (test.content == Content::alternating) value = (t + k) % 2 == 0 ? 127 : -127;
        row[k] = static_cast<uint8_t>(static_cast<int>(value));
      } else if (k < test.columns) {
        const uint16_t bits = f32_to_bf16(normal(random, test.content == Content::largest ? 1e4f : 1.0f));
        value = bf16_to_f32(bits);
        std::memcpy(row + 2 * tile::bf16_position(k), &bits, sizeof bits);
      }
      sums[k / kUnit] += value;
      total += value;
      x.values.push_back(value);
    }
    x.scales.push_back(test.content == Content::zero ? 0.0f : std::fabs(normal(random, 0.01f)));
    if (test.int8) {
      const auto whole = static_cast<int32_t>(total);
      std::memcpy(row + q8::scale_offset(test.columns), &x.scales.back(), sizeof(float));
      std::memcpy(row + q8::total_offset(test.columns), &whole, sizeof whole);
      for (size_t i = 0; i < sums.size(); i += 4) {
        const auto sum = static_cast<int32_t>(sums[i] + sums[i + 1] + sums[i + 2] + sums[i + 3]);
        std::memcpy(row + q8::sums_offset(test.columns) + i, &sum, sizeof sum);
      }
    }
    for (size_t i = 0; i < sums.size(); ++i) {
      const auto whole = static_cast<int32_t>(sums[i]);
      const auto real = static_cast<float>(sums[i]);
      uint8_t* at = row + 4 * i +
                    (test.int8 ? q8::fine_sums_offset(test.columns) : bf16_row::sums_offset(test.columns));
      std::memcpy(at, test.int8 ? static_cast<const void*>(&whole) : &real, 4);
    }
  }
  return x;
}

// What row n and token t must give with int8 activations, by the operations of the contract.
float exact_output(const TableCase& test, const TableMatrix& matrix, const Activations& x, size_t t,
                   size_t n) {
  const size_t columns = test.stored_columns();
  float acc = 0;
  for (size_t g = 0; g < test.groups(); ++g) {
    int64_t dot = 0;
    int64_t sum = 0;
    for (size_t k = g * test.group; k < (g + 1) * test.group; ++k) {
      const auto entry = static_cast<int64_t>(matrix.entry(test, matrix.codes[n * columns + k]));
      const auto value = static_cast<int64_t>(x.values[t * columns + k]);
      dot += entry * value;
      sum += value;
    }
    REQUIRE(std::abs(dot) < (int64_t{1} << 24));
    float d = static_cast<float>(dot);
    const float offset = matrix.offsets[n * test.groups() + g];
    if (test.form() == cpu::GroupForm::zero_points) d = std::fma(-offset, static_cast<float>(sum), d);
    acc = std::fma(matrix.scales[n * test.groups() + g], d, acc);
    if (test.form() == cpu::GroupForm::minimums) acc = std::fma(offset, static_cast<float>(sum), acc);
  }
  return acc * (test.table() ? x.scales[t] / 127.0f : x.scales[t]);
}

// The same with bfloat16 activations in float64, and how far f32 sums in any order may be from it.
struct Bounded {
  double y = 0;
  double slack = 0;
};
Bounded bounded_output(const TableCase& test, const TableMatrix& matrix, const Activations& x, size_t t,
                       size_t n) {
  const size_t columns = test.stored_columns();
  Bounded result;
  double magnitude = 0;
  for (size_t k = 0; k < columns; ++k) {
    const double scale = matrix.scales[n * test.groups() + k / test.group];
    const double offset = test.offsets() ? matrix.offsets[n * test.groups() + k / test.group] : 0.0f;
    const double zero = test.form() == cpu::GroupForm::zero_points ? offset : 0.0;
    const double minimum = test.form() == cpu::GroupForm::minimums ? offset : 0.0;
    const double entry = matrix.entry(test, matrix.codes[n * columns + k]);
    const double value = x.values[t * columns + k];
    result.y += (scale * (entry - zero) + minimum) * value;
    magnitude += (std::fabs(scale) * (std::fabs(entry) + zero) + std::fabs(minimum)) * std::fabs(value);
    // The dot product of bfloat16 pairs takes denormal operands and results for 0.
    result.slack += 0x1p-126 * (std::fabs(scale) + 1) * (std::fabs(entry) + std::fabs(value) + 4);
  }
  // A term passes a sum of its group, sums of units or groups, and a few operations with scale and zero
  // point.
  const double roundings = static_cast<double>(test.group + columns / kUnit + 8) * kRoundoff;
  result.slack += roundings / (1 - roundings) * magnitude;
  return result;
}

// Everything a case needs, in arrays that end at a protected page.
class Bench {
 public:
  Bench(Random& random, const TableCase& test)
      : test_(test),
        matrix_(make_matrix(random, test)),
        x_(make_activations(random, test)),
        panels_(matrix_.stored.size(), any_skew(random)),
        rows_(x_.stored.size(), any_skew(random)),
        table_(16, any_skew(random)),
        bias_(test.rows, any_skew(random)),
        y_stride_(test.rows + pick(random, 0, 20)),
        values_stride_(test.stored_columns() * kRows * test.value_bytes() + 64 * pick(random, 0, 2)),
        scales_stride_(test.groups() * kRows + pick(random, 0, 20)),
        values_((test.panels() - 1) * values_stride_ + test.stored_columns() * kRows * test.value_bytes(),
                any_skew(random)),
        scales_((test.panels() - 1) * scales_stride_ + test.groups() * kRows, any_skew(random)),
        offsets_(scales_.size(), any_skew(random)),
        y_((test.tokens - 1) * y_stride_ + test.rows, any_skew(random)) {
    std::copy(matrix_.stored.begin(), matrix_.stored.end(), panels_.data());
    std::copy(x_.stored.begin(), x_.stored.end(), rows_.data());
    std::copy(std::begin(matrix_.table), std::end(matrix_.table), table_.data());
    for (float& value : bias_.values()) value = normal(random);
  }

  // Outputs of tokens [first, first + count), [count][rows], by codes or by expanded panels.
  std::vector<float> by_codes(const cpu::TableKernels& kernels, size_t first, size_t count) {
    y_.poison();
    kernels.codes[test_.codes].product({.panels = panels_.data(),
                                        .panel_stride = matrix_.panel_stride,
                                        .rows = test_.rows,
                                        .columns = test_.stored_columns(),
                                        .group = test_.group,
                                        .table = test_.table() ? table_.data() : nullptr,
                                        .x = rows_.data() + first * x_.stride,
                                        .x_stride = x_.stride,
                                        .x_columns = test_.columns,
                                        .tokens = count,
                                        .bias = test_.bias ? bias_.data() : nullptr,
                                        .y = y_.data(),
                                        .y_stride = y_stride_});
    return outputs(count);
  }

  void expand(const cpu::TableKernels& kernels) {
    values_.poison();
    scales_.poison();
    offsets_.poison();
    for (size_t p = 0; p < test_.panels(); ++p) {
      kernels.codes[test_.codes].expand(
          panels_.data() + p * matrix_.panel_stride, test_.stored_columns(), test_.group,
          test_.table() ? table_.data() : nullptr,
          {.values = values_.data() + p * values_stride_,
           .scales = scales_.data() + p * scales_stride_,
           .offsets = test_.offsets() ? offsets_.data() + p * scales_stride_ : nullptr});
    }
  }

  std::vector<float> by_values(const cpu::TableKernels& kernels, size_t first, size_t count) {
    y_.poison();
    kernels.product_expanded({.form = test_.form(),
                              .values = values_.data(),
                              .values_stride = values_stride_,
                              .scales = scales_.data(),
                              .offsets = test_.offsets() ? offsets_.data() : nullptr,
                              .scales_stride = scales_stride_,
                              .rows = test_.rows,
                              .columns = test_.stored_columns(),
                              .group = test_.group,
                              .x = rows_.data() + first * x_.stride,
                              .x_stride = x_.stride,
                              .x_columns = test_.columns,
                              .tokens = count,
                              .bias = test_.bias ? bias_.data() : nullptr,
                              .y = y_.data(),
                              .y_stride = y_stride_});
    return outputs(count);
  }

  // Whether the outputs of all tokens are what the statement of the job says.
  size_t wrong_outputs(const std::vector<float>& outputs) const {
    size_t wrong = 0;
    for (size_t t = 0; t < test_.tokens; ++t) {
      for (size_t n = 0; n < test_.rows; ++n) {
        const float y = outputs[t * test_.rows + n];
        if (test_.int8) {
          float expected = exact_[t * test_.rows + n];
          if (test_.bias) expected = expected + bias_[n];
          wrong += same_bits(y, expected) ? 0 : 1;
        } else {
          Bounded expected = bounded_[t * test_.rows + n];
          if (test_.bias) expected.y += bias_[n];
          if (test_.bias) expected.slack += 2 * kRoundoff * (std::fabs(expected.y) + std::fabs(bias_[n]));
          wrong += std::fabs(y - expected.y) <= expected.slack ? 0 : 1;
        }
      }
    }
    return wrong;
  }

  void state_job() {
    for (size_t t = 0; t < test_.tokens; ++t) {
      for (size_t n = 0; n < test_.rows; ++n) {
        if (test_.int8) exact_.push_back(exact_output(test_, matrix_, x_, t, n));
        if (!test_.int8) bounded_.push_back(bounded_output(test_, matrix_, x_, t, n));
      }
    }
  }

  // Whether expanded panels hold what the index maps say.
  size_t wrong_values() {
    size_t wrong = 0;
    for (size_t p = 0; p < test_.panels(); ++p) {
      for (size_t r = 0; r < kRows; ++r) {
        const size_t n = p * kRows + r;
        for (size_t k = 0; k < test_.stored_columns(); ++k) {
          const double entry = matrix_.entry(test_, matrix_.codes[n * test_.stored_columns() + k]);
          const uint8_t* panel = values_.data() + p * values_stride_;
          if (test_.int8) {
            const double middle = test_.offsets() ? 0 : 128;
            wrong += panel[tile::byte_in_panel(r, k)] == entry + middle ? 0 : 1;
          } else {
            uint16_t bits = 0;
            std::memcpy(&bits, panel + 2 * tile::bf16_in_panel(r, tile::bf16_position(k)), sizeof bits);
            wrong += bits == f32_to_bf16(static_cast<float>(entry)) ? 0 : 1;
          }
        }
        for (size_t g = 0; g < test_.groups(); ++g) {
          const size_t at = p * scales_stride_ + g * kRows + r;
          wrong += same_bits(scales_[at], matrix_.scales[n * test_.groups() + g]) ? 0 : 1;
          if (test_.offsets())
            wrong += same_bits(offsets_[at], matrix_.offsets[n * test_.groups() + g]) ? 0 : 1;
        }
      }
    }
    return wrong;
  }

  bool untouched() const {
    return values_.untouched() && scales_.untouched() && offsets_.untouched() && y_.untouched();
  }

 private:
  std::vector<float> outputs(size_t tokens) {
    std::vector<float> result;
    size_t touched = 0;
    for (size_t i = 0; i < y_.size(); ++i) {
      if (i / y_stride_ < tokens && i % y_stride_ < test_.rows) {
        result.push_back(y_[i]);
      } else {
        touched += std::isnan(y_[i]) ? 0 : 1;  // what no output belongs to keeps its poison
      }
    }
    CHECK(touched == 0);
    return result;
  }

  TableCase test_;
  TableMatrix matrix_;
  Activations x_;
  EdgeArray<uint8_t> panels_;
  EdgeArray<uint8_t> rows_;
  EdgeArray<float> table_;
  EdgeArray<float> bias_;
  size_t y_stride_;
  size_t values_stride_;
  size_t scales_stride_;
  EdgeArray<uint8_t> values_;
  EdgeArray<float> scales_;
  EdgeArray<float> offsets_;
  EdgeArray<float> y_;
  std::vector<float> exact_;
  std::vector<Bounded> bounded_;
};

bool same_outputs(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), same_bits);
}

void check_products(Random& random, const TableCase& test) {
  Bench bench(random, test);
  bench.state_job();
  for (const cpu::Kernels* table : runnable_kernels()) {
    const cpu::TableKernels& kernels = test.kernels(*table);
    CAPTURE(table->name);
    CAPTURE(test.int8);
    CAPTURE(static_cast<int>(test.codes));
    CAPTURE(test.group);
    CAPTURE(static_cast<int>(test.content));
    CAPTURE(test.rows);
    CAPTURE(test.columns);
    CAPTURE(test.tokens);
    const std::vector<float> outputs = bench.by_codes(kernels, 0, test.tokens);
    CHECK(bench.wrong_outputs(outputs) == 0);
    bench.expand(kernels);
    CHECK(bench.wrong_values() == 0);
    CHECK(same_outputs(bench.by_values(kernels, 0, test.tokens), outputs));
    CHECK(bench.untouched());
  }
}

constexpr cpu::TableCodes kAllCodes[] = {cpu::kLut2, cpu::kLut3,  cpu::kLut4, cpu::kInt4,
                                         cpu::kInt8, cpu::kInt4m, cpu::kInt4k};
constexpr size_t kAllGroups[] = {32, 64, 128, 256};

template <class Check>
void for_all_formats(Check check) {
  for (const bool int8 : {true, false}) {
    for (const cpu::TableCodes codes : kAllCodes) {
      for (const size_t group : kAllGroups) {
        if ((codes == cpu::kInt4m || codes == cpu::kInt4k) && group != 32) continue;
        TableCase test;
        test.int8 = int8;
        test.codes = codes;
        test.group = group;
        check(test);
      }
    }
  }
}

}  // namespace

TEST_CASE("table products take every number of tokens") {
  Random random = seeded("table products, tokens");
  for_all_formats([&](TableCase test) {
    for (size_t tokens = 1; tokens <= 21; ++tokens) {
      test.tokens = tokens <= 20 ? tokens : 33;
      test.rows = pick(random, 1, 40);
      test.columns = pick(random, 1, 2 * test.group + 70);
      test.bias = pick(random, 0, 1) == 0;
      check_products(random, test);
    }
  });
}

TEST_CASE("table products are right at odd sizes") {
  Random random = seeded("table products, sizes");
  for_all_formats([&](TableCase test) {
    for (const size_t rows : {1, 5, 16, 17, 32, 48, 100}) {
      for (const size_t columns : {1, 31, 32, 33, 172, 256, 897}) {
        test.rows = rows;
        test.columns = columns;
        test.tokens = pick(random, 1, 9);
        test.bias = pick(random, 0, 1) == 0;
        check_products(random, test);
      }
    }
  });
}

TEST_CASE("table products neither saturate nor overflow at the extremes") {
  Random random = seeded("table products, extremes");
  for_all_formats([&](TableCase test) {
    for (const Content content : {Content::largest, Content::alternating, Content::zero}) {
      test.content = content;
      test.rows = 21;
      test.columns = 1024;
      for (const size_t tokens : {1, 7}) {
        test.tokens = tokens;
        check_products(random, test);
      }
    }
  });
}

TEST_CASE("a token's outputs do not depend on the tokens beside it, nor on the way") {
  Random random = seeded("table products, one token");
  for_all_formats([&](TableCase test) {
    test.rows = pick(random, 1, 50);
    test.columns = pick(random, 1, 3 * test.group + 40);
    test.tokens = pick(random, 9, 30);
    Bench bench(random, test);
    for (const cpu::Kernels* table : runnable_kernels()) {
      const cpu::TableKernels& kernels = test.kernels(*table);
      const std::vector<float> all = bench.by_codes(kernels, 0, test.tokens);
      bench.expand(kernels);
      size_t different = 0;
      for (size_t t = 0; t < test.tokens;) {
        const size_t count = std::min(pick(random, 1, 8), test.tokens - t);
        const auto* first = all.data() + t * test.rows;
        const std::vector<float> together(first, first + count * test.rows);
        different += same_outputs(bench.by_codes(kernels, t, count), together) ? 0 : 1;
        different += same_outputs(bench.by_values(kernels, t, count), together) ? 0 : 1;
        t += count;
      }
      CAPTURE(table->name);
      CAPTURE(test.int8);
      CAPTURE(static_cast<int>(test.codes));
      CAPTURE(test.group);
      CHECK(different == 0);
    }
  });
}
