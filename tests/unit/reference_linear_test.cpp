// Products of the reference backend against their formulas written out here, for every matrix scheme; integer
// arithmetic bit for bit.
#include <doctest/doctest.h>

#include <functional>

#include "backends/reference/weight_rows.h"
#include "gguf-like-format/float_types.h"
#include "tests/unit/expected_rows.h"
#include "tests/unit/op_cases.h"

using namespace tessera;

namespace {

// One result: row n of a weight times the row of inputs x, plus its bias where there is one.
using Dot =
    std::function<double(const rig::PackedTensor& weight, size_t n, const Row& x, const double* bias)>;

// The rows that the linear op of a case should give.
std::vector<Row> expected_rows(const rig::OpCase& test, const Dot& dot) {
  std::vector<Row> expected;
  for (const Output& output : outputs_of(test)) {
    const Row x = table_row(test.weights[0], output.token);
    Row row;
    for (const Op& op : test.graph.ops) {
      const auto* linear = std::get_if<Linear>(&op.kind);
      if (linear == nullptr) continue;
      CHECK(linear->parts[0].bias.has_value());
      for (const LinearPart& part : linear->parts) {
        const rig::PackedTensor& weight = test.weights[part.weight];
        for (size_t n = 0; n < weight.rows(); ++n)
          row.push_back(dot(weight, n, x, part.bias ? &test.weights[*part.bias].values[n] : nullptr));
      }
    }
    expected.push_back(row);
  }
  return expected;
}

// A sum in more than float64, of the values as given or of what `rounded` makes of them.
double exact_sum(const rig::PackedTensor& weight, size_t n, const Row& x, const double* bias,
                 const std::function<double(double)>& rounded) {
  const Row w = table_row(weight, n);
  long double sum = bias != nullptr ? static_cast<long double>(*bias) : 0.0L;
  for (size_t k = 0; k < w.size(); ++k)
    sum += static_cast<long double>(w[k]) * static_cast<long double>(rounded(x[k]));
  return static_cast<double>(sum);
}

double through_bf16(double value) { return double{bf16_to_f32(f32_to_bf16(static_cast<float>(value)))}; }

// Whole-number sums of every group, scaled: y = x_scale (/ 127) * sum of scale * (products - zero * total) +
// minimum * total.
double grouped_sum(const SchemeFacts& format, const rig::PackedTensor& weight, size_t n, const Codes& x,
                   const double* bias) {
  const size_t columns = weight.columns();
  const size_t groups = (columns + format.group - 1) / format.group;
  long double sum = 0;
  for (size_t g = 0; g < groups; ++g) {
    int64_t products = 0;
    int64_t total = 0;
    for (size_t k = g * format.group; k < std::min(columns, (g + 1) * format.group); ++k) {
      products += int64_t{weight.integers[n * columns + k]} * x.codes[k];
      total += x.codes[k];
    }
    const size_t at = n * groups + g;
    sum += static_cast<long double>(weight.scales[at]) *
           (static_cast<long double>(products) -
            static_cast<long double>(weight.zeros[at]) * static_cast<long double>(total));
    sum += static_cast<long double>(weight.minimums[at]) * static_cast<long double>(total);
  }
  sum *= static_cast<long double>(x.scale) / (format.table ? 127 : 1);
  return static_cast<double>(sum + (bias != nullptr ? static_cast<long double>(*bias) : 0.0L));
}

}  // namespace

TEST_CASE("linear sums in float64 over f32, f16 and bf16 weights") {
  rig::Random random(fresh_seed());
  for (const Scheme scheme : {Scheme::f32, Scheme::f16, Scheme::bf16}) {
    const rig::OpCase test = rig::linear_case(random, scheme, {{21, 16, 3}, 173, 9, true, false});
    const auto dot = [](const rig::PackedTensor& weight, size_t n, const Row& x, const double* bias) {
      return exact_sum(weight, n, x, bias, [](double value) { return value; });
    };
    check_rows(test, expected_rows(test, dot), kRoundedOnce);
  }
}

TEST_CASE("linear on integer codes is exact before the scaling and scales in the stated order") {
  rig::Random random(fresh_seed());
  for (const Scheme scheme : {Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128}) {
    for (const size_t columns : {size_t{1}, size_t{172}, size_t{640}}) {
      const rig::OpCase test = rig::linear_case(random, scheme, {{19, 5}, columns, 9, true, false});
      const auto dot = [columns](const rig::PackedTensor& weight, size_t n, const Row& inputs,
                                 const double* bias) {
        const Codes x = quantized(inputs);
        const std::vector<int8_t> codes(x.codes.begin(), x.codes.end());
        int64_t sum = 0;
        for (size_t k = 0; k < columns; ++k) sum += int64_t{weight.integers[n * columns + k]} * x.codes[k];
        std::vector<int32_t> stored(columns);
        const reference::IntegerRow meaning = reference::read_integer_row(weight.view(), n, stored);
        REQUIRE(reference::integer_accumulator(stored, meaning.offset, codes) == sum);
        REQUIRE(meaning.scale == weight.scales[n]);
        const float scale = weight.scales[n] * x.scale;
        float y = scale * static_cast<float>(sum);
        if (bias != nullptr) y += static_cast<float>(*bias);
        return double{y};
      };
      check_rows(test, expected_rows(test, dot), 0);
    }
  }
}

TEST_CASE(
    "linear on codes with scales per group: exact within a group for int8 activations, else sums of rounded "
    "ones") {
  rig::Random random(fresh_seed());
  for (const Scheme scheme : matrix_schemes()) {
    const SchemeFacts& facts = scheme_facts(scheme);
    if (!facts.group_scales()) continue;
    for (const size_t columns : {size_t{1}, size_t{172}, size_t{640}}) {
      const rig::OpCase test = rig::linear_case(random, scheme, {{19, 5}, columns, 9, true, false});
      const auto dot = [&facts](const rig::PackedTensor& weight, size_t n, const Row& x, const double* bias) {
        return facts.activations == ActivationType::int8 ? grouped_sum(facts, weight, n, quantized(x), bias)
                                                         : exact_sum(weight, n, x, bias, through_bf16);
      };
      check_rows(test, expected_rows(test, dot), kRoundedOnce);
    }
  }
}
