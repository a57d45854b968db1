// Every op of the reference backend but products (reference_linear_test) against its formula written out
// here.
#include <doctest/doctest.h>

#include <cmath>
#include <complex>
#include <iostream>
#include <limits>

#include "backends/reference/bf16_row.h"
#include "backends/reference/quantized_row.h"
#include "backends/reference/reference_backend.h"
#include "backends/reference/weight_rows.h"
#include "engine/codec/matrix_codec.h"
#include "graph/bf16_row.h"
#include "graph/q8_row.h"
#include "tests/unit/expected_rows.h"
#include "tests/unit/op_cases.h"

using namespace tessera;

namespace {

double f16(double value) { return f16_to_f32(f32_to_f16(static_cast<float>(value))); }

// What a key or value row means after the cache rounded it, and for 4 bits the value of one step and of
// code 8.
struct Cached {
  Row values;
  double step = 0;
  double middle = 0;
};

Cached cached(const Row& row, unsigned bits) {
  Cached result;
  Row& out = result.values;
  float low = std::numeric_limits<float>::infinity();
  float high = -low;
  for (const double value : row) {
    low = std::fmin(low, static_cast<float>(value));
    high = std::fmax(high, static_cast<float>(value));
  }
  const float largest = std::fmax(std::fabs(low), std::fabs(high));
  for (const double value : row) {
    const float x = static_cast<float>(value);
    if (bits == 16) {
      out.push_back(f16(x));
    } else if (bits == 8) {
      const double scale = f16(largest / 127.0f);
      const float code = scale == 0 ? 0 : std::rint(x / static_cast<float>(scale));
      out.push_back(scale * std::fmin(127.0f, std::fmax(-127.0f, code)));
    } else {
      const double scale = f16((high - low) / 15.0f);
      const double start = f16(low);
      const float code =
          scale == 0 ? 0 : std::rint((x - static_cast<float>(start)) / static_cast<float>(scale));
      out.push_back(scale * std::fmin(15.0f, std::fmax(0.0f, code)) + start);
      result.step = scale;
      result.middle = start + 8 * scale;
    }
  }
  return result;
}

// The norm that the case is about: the first one.
const Norm& norm_of(const Graph& graph) {
  const auto is_norm = [](const Op& op) { return std::holds_alternative<Norm>(op.kind); };
  return std::get<Norm>(std::find_if(graph.ops.begin(), graph.ops.end(), is_norm)->kind);
}

// x as the nearest multiples of its largest magnitude / most.
Row to_multiples(const Row& x, int most) {
  double largest = 0;
  for (const double value : x) largest = std::max(largest, std::abs(value));
  Row out = x;
  if (largest == 0) return out;
  for (double& value : out) value = std::rint(value / (largest / most)) * (largest / most);
  return out;
}

}  // namespace

TEST_CASE("embed reads rows of every scheme exactly") {
  rig::Random random(fresh_seed());
  for (const Scheme scheme : matrix_schemes()) {
    const rig::OpCase test = rig::embed_case(random, scheme, 37, 172);
    std::vector<Row> expected;
    for (const Output& output : outputs_of(test)) {
      Row row = table_row(test.weights[0], output.token);
      const float multiplier = std::get<Embed>(test.graph.ops.front().kind).multiplier;
      for (double& value : row) value = static_cast<float>(value) * multiplier;
      expected.push_back(row);
    }
    check_rows(test, expected, 0);
  }
}

TEST_CASE("stored rows mean what was packed, for hand-made bytes and for encoded ones") {
  rig::Random random(fresh_seed());
  for (const Scheme scheme : matrix_schemes()) {
    for (const auto& [rows, columns] : {std::pair<size_t, size_t>{1, 1}, {17, 172}, {33, 300}}) {
      rig::PackedTensor matrix = rig::random_matrix(random, "w", scheme, rows, columns);
      Row row(columns);
      for (size_t r = 0; r < rows; ++r) {
        reference::read_row(matrix.view(), r, row);
        REQUIRE(row == table_row(matrix, r));
      }
      std::vector<float> values(rows * columns);
      for (float& value : values) value = rig::normal(random);
      write_default_table(scheme, rows, columns, matrix.bytes);
      encode_rows(scheme, rows, columns, 0, rows, values, matrix.bytes);
      Row decoded(columns);
      double error = 0;
      for (size_t r = 0; r < rows; ++r) {
        reference::read_row(matrix.view(), r, row);
        decode_row(scheme, rows, columns, matrix.bytes, r, decoded);
        REQUIRE(row == decoded);
        for (size_t i = 0; i < columns; ++i)
          error = std::max(error, std::abs(row[i] - double{values[r * columns + i]}));
      }
      // Tables leave steps as wide as the largest value of a group: 2 bits all of it, 4 bits a third.
      const SchemeFacts& facts = scheme_facts(scheme);
      CHECK(error < (!facts.table && facts.offset != GroupOffset::zero_point ? 0.5
                     : facts.bits == 4                                       ? 1.0
                                                                             : 3.0));
    }
  }
}

TEST_CASE("norm divides by the root mean square, adds first when asked, and selects rows") {
  rig::Random random(fresh_seed());
  for (const size_t columns : {size_t{1}, size_t{64}, size_t{173}}) {
    for (const bool added : {false, true}) {
      for (const bool select : {false, true}) {
        rig::OpCase test = rig::norm_case(random, {columns, added, select, ElementType::f32, false});
        const rig::PackedTensor& gain = test.weights[added ? 2 : 1];
        std::vector<Row> normed;
        std::vector<Row> sums;
        for (const Output& output : outputs_of(test)) {
          Row row = table_row(test.weights[0], output.token);
          if (added) {
            const Row other = table_row(test.weights[1], output.token);
            const float multiplier = norm_of(test.graph).added_multiplier;
            for (size_t i = 0; i < columns; ++i)
              row[i] = static_cast<float>(row[i] + double{multiplier * static_cast<float>(other[i])});
          }
          sums.push_back(row);
          long double squares = 0;
          for (const double value : row) squares += static_cast<long double>(value) * value;
          const double root = static_cast<double>(
              std::sqrt(squares / static_cast<long double>(columns) + static_cast<long double>(1e-5f)));
          for (size_t i = 0; i < columns; ++i) row[i] = row[i] / root * gain.values[i];
          normed.push_back(row);
        }
        check_rows(test, normed, kRoundedOnce);
        if (!added) continue;
        for (Op& op : test.graph.ops) {  // look at the sum instead
          if (op.outputs.size() == 2 && op.outputs[0] == test.graph.logits) test.graph.logits = op.outputs[1];
        }
        if (select) check_rows(test, sums, 0);
      }
    }
  }
}

TEST_CASE("rope turns pairs of halves by position times frequency") {
  rig::Random random(fresh_seed());
  for (const rig::RopeShape& shape :
       {rig::RopeShape{3, 16, 16, 0, true}, {2, 24, 10, 5, true}, {1, 8, 0, 0, true}}) {
    const rig::OpCase test = rig::rope_case(random, shape);
    std::vector<Row> expected;
    for (const Output& output : outputs_of(test)) {
      Row row = table_row(test.weights[0], output.token);
      for (size_t head = 0; head < shape.heads; ++head) {
        for (size_t i = 0; i < shape.rotary / 2; ++i) {
          const double frequency =
              std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(shape.rotary));
          double& a = row[head * shape.head_dim + i];
          double& b = row[head * shape.head_dim + i + shape.rotary / 2];
          const std::complex<double> turned =
              std::complex<double>(a, b) * std::polar(1.0, static_cast<double>(output.position) * frequency);
          a = turned.real();
          b = turned.imag();
        }
      }
      expected.push_back(row);
    }
    check_rows(test, expected, kRoundedOnce);
  }
}

TEST_CASE("attention is a causal softmax over the rounded cache of each sequence") {
  rig::Random random(fresh_seed());
  for (const unsigned bits : {16u, 8u, 4u}) {
    for (const rig::AttentionShape& shape : {rig::AttentionShape{4, 2, 16, bits, 1, 0, 5, 40},
                                             {3, 3, 8, bits, 1, 0, 3, 90},
                                             {6, 1, 24, bits, 1, 1, 3, 9}}) {
      const rig::OpCase test = rig::attention_case(random, shape);
      const unsigned layer_bits = shape.first_layers_16bit > 0 ? 16 : bits;
      const size_t d = shape.head_dim;
      const double scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
      // A sequence is known by its first page.
      std::vector<std::vector<uint32_t>> history(test.pages);
      std::vector<Row> expected;
      for (const rig::CaseRun& run : test.runs) {
        size_t next = 0;
        for (const rig::CaseSequence& sequence : run.sequences) {
          std::vector<uint32_t>& tokens = history[sequence.pages[0]];
          REQUIRE(tokens.size() == sequence.position);
          for (size_t i = 0; i < sequence.token_count; ++i) {
            tokens.push_back(run.tokens[next++]);
            const Row query = table_row(test.weights[0], tokens.back());
            Row out(shape.query_heads * d, 0.0);
            for (size_t head = 0; head < shape.query_heads; ++head) {
              const size_t kv_head = head / (shape.query_heads / shape.kv_heads);
              std::vector<Cached> values;
              Row scores;
              const auto head_begin = query.begin() + static_cast<std::ptrdiff_t>(head * d);
              const Row exact(head_begin, head_begin + static_cast<std::ptrdiff_t>(d));
              // Against 4-bit keys the query has 8 bits: around the middle of the codes, not around zero.
              const Row rounded = layer_bits == 4 ? to_multiples(exact, 127) : exact;
              for (const uint32_t token : tokens) {
                const Row row = table_row(test.weights[0], token);
                const auto part = [&](size_t heads_before) {
                  const auto at = row.begin() + static_cast<std::ptrdiff_t>((heads_before + kv_head) * d);
                  return cached(Row(at, at + static_cast<std::ptrdiff_t>(d)), layer_bits);
                };
                const Cached key = part(shape.query_heads);
                values.push_back(part(shape.query_heads + shape.kv_heads));
                double dot = 0;
                for (size_t j = 0; j < d; ++j)
                  dot += rounded[j] * (key.values[j] - key.middle) + exact[j] * key.middle;
                scores.push_back(scale * dot);
              }
              const double largest = *std::max_element(scores.begin(), scores.end());
              double total = 0;
              Row sum(d, 0.0);
              Row weights;
              for (const double score : scores) weights.push_back(std::exp(score - largest));
              for (size_t page = 0; page < scores.size(); page += kKvPageTokens) {
                const size_t end = std::min(page + kKvPageTokens, scores.size());
                // So have the weights of a page against 4-bit values, times the values' steps.
                Row scaled;
                for (size_t p = page; p < end; ++p) scaled.push_back(weights[p] * values[p].step);
                const Row whole = to_multiples(scaled, 255);
                for (size_t p = page; p < end; ++p) {
                  total += weights[p];
                  const Cached& value = values[p];
                  const double weight = value.step > 0 ? whole[p - page] / value.step : weights[p];
                  for (size_t j = 0; j < d; ++j)
                    sum[j] += weight * (value.values[j] - value.middle) + weights[p] * value.middle;
                }
              }
              for (size_t j = 0; j < d; ++j) out[head * d + j] = sum[j] / total;
            }
            expected.push_back(out);
          }
        }
      }
      check_rows(test, expected, 1e-7);
    }
  }
}

TEST_CASE("gate is silu of the first half times the second") {
  rig::Random random(fresh_seed());
  const size_t columns = 173;
  const rig::OpCase test = rig::gate_case(random, columns, ElementType::f32);
  std::vector<Row> expected;
  for (const Output& output : outputs_of(test)) {
    const Row x = table_row(test.weights[0], output.token);
    Row row(columns);
    for (size_t i = 0; i < columns; ++i) row[i] = x[i] * x[columns + i] / (std::exp(-x[i]) + 1);
    expected.push_back(row);
  }
  check_rows(test, expected, kRoundedOnce);
}

TEST_CASE("norm and gate with q8 or bf16 results round the float32 row they would have written") {
  rig::Random random(fresh_seed());
  const auto check = [](const rig::OpCase& plain, const rig::OpCase& codes, ElementType type) {
    const std::unique_ptr<Backend> backend = make_reference_backend();
    const std::vector<float> rows = rig::run_case(*backend, plain);
    const std::vector<float> got = rig::run_case(*backend, codes);
    REQUIRE(rows.size() == got.size());
    const size_t columns = plain.graph.tensors[plain.graph.logits].columns;
    for (size_t row = 0; row < rows.size() / columns; ++row) {
      const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(row * columns);
      const Codes expected = quantized(Row(begin, begin + static_cast<std::ptrdiff_t>(columns)));
      for (size_t i = 0; i < columns; ++i) {
        const size_t at = row * columns + i;
        REQUIRE(got[at] == (type == ElementType::q8 ? expected.scale * static_cast<float>(expected.codes[i])
                                                    : bf16_to_f32(f32_to_bf16(rows[at]))));
      }
    }
  };
  const uint64_t seed = random();
  for (const ElementType type : {ElementType::q8, ElementType::bf16}) {
    for (const bool added : {false, true}) {
      rig::Random first(seed);
      rig::Random second(seed);
      rig::OpCase plain = rig::norm_case(first, {172, added, false, ElementType::f32, false});
      const rig::OpCase codes = rig::norm_case(second, {172, added, false, type, false});
      plain.runs = codes.runs;
      plain.limits = codes.limits;
      plain.pages = codes.pages;
      check(plain, codes, type);
    }
    rig::Random first(seed);
    rig::Random second(seed);
    rig::OpCase plain = rig::gate_case(first, 172, ElementType::f32);
    const rig::OpCase codes = rig::gate_case(second, 172, type);
    plain.runs = codes.runs;
    plain.limits = codes.limits;
    plain.pages = codes.pages;
    check(plain, codes, type);
  }
}

TEST_CASE("quantize makes exact codes, through the op") {
  rig::Random random(fresh_seed());
  for (const size_t columns : {size_t{1}, size_t{129}, size_t{300}}) {
    const rig::OpCase test = rig::quantize_case(random, columns, ElementType::q8);
    std::vector<Row> expected;
    for (const Output& output : outputs_of(test)) {
      const Codes codes = quantized(table_row(test.weights[0], output.token));
      Row row;
      for (const int code : codes.codes) row.push_back(codes.scale * static_cast<float>(code));
      expected.push_back(row);
    }
    check_rows(test, expected, 0);
  }
}

TEST_CASE("a bfloat16 row in memory: values with the middle of each quad exchanged, sums, padding zero") {
  rig::Random random(fresh_seed());
  constexpr std::array<size_t, 4> kOrder = {0, 2, 1, 3};
  for (const size_t columns : {size_t{1}, size_t{6}, size_t{255}, size_t{256}, size_t{301}}) {
    std::vector<float> x(columns);
    for (float& value : x) value = rig::normal(random);
    std::vector<std::byte> row(bf16_row::row_stride(columns), std::byte{0xaa});
    reference::round_row(x, row.data());
    Row read(columns);
    reference::read_bf16_row(row.data(), read);
    for (size_t i = 0; i < columns; ++i) REQUIRE(read[i] == double{bf16_to_f32(f32_to_bf16(x[i]))});
    std::vector<double> sums(bf16_row::groups(columns), 0.0);
    for (size_t i = 0; i < bf16_row::padded_columns(columns); ++i) {
      uint16_t stored = 0;
      std::memcpy(&stored, row.data() + 2 * (i / 4 * 4 + kOrder[i % 4]), sizeof stored);
      REQUIRE(stored == (i < columns ? f32_to_bf16(x[i]) : 0));
      sums[i / 32] += double{bf16_to_f32(stored)};
    }
    for (size_t g = 0; g < sums.size(); ++g) {
      float sum = 0;
      std::memcpy(&sum, row.data() + bf16_row::sums_offset(columns) + 4 * g, sizeof sum);
      CHECK(sum == static_cast<float>(sums[g]));
    }
  }
  // Halfway between two bfloat16 numbers the even one is taken; what is not finite stays so.
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {1.00390625f, 1.01171875f, -infinity, std::numeric_limits<float>::quiet_NaN(),
                                3.4e38f};
  std::vector<std::byte> row(bf16_row::row_stride(x.size()));
  reference::round_row(x, row.data());
  Row read(x.size());
  reference::read_bf16_row(row.data(), read);
  CHECK(read[0] == 1.0);
  CHECK(read[1] == 1.015625);
  CHECK(read[2] == -double{infinity});
  CHECK(std::isnan(read[3]));
  CHECK(read[4] == double{infinity});
}

TEST_CASE("a quantized row in memory: codes, scale, total and group sums, padding zero") {
  rig::Random random(fresh_seed());
  const auto read = [](const std::vector<std::byte>& row, size_t offset) {
    int32_t value = 0;
    std::memcpy(&value, row.data() + offset, sizeof value);
    return value;
  };
  const auto quantize = [](const std::vector<float>& x) {
    std::vector<std::byte> row(q8::row_stride(x.size()), std::byte{0xaa});
    reference::quantize_row(x, row.data());
    return row;
  };
  for (const size_t columns : {size_t{1}, size_t{127}, size_t{128}, size_t{129}, size_t{301}}) {
    std::vector<float> x(columns);
    for (float& value : x) value = rig::normal(random);
    const std::vector<std::byte> row = quantize(x);
    const Codes expected = quantized(Row(x.begin(), x.end()));
    CHECK(reference::scale_of(row.data(), columns) == expected.scale);
    int32_t total = 0;
    std::vector<int32_t> sums(q8::groups(columns), 0);
    std::vector<int32_t> fine(q8::fine_groups(columns), 0);
    for (size_t i = 0; i < q8::padded_columns(columns); ++i) {
      const int code = static_cast<int8_t>(row[i]);
      REQUIRE(code == (i < columns ? expected.codes[i] : 0));
      total += code;
      sums[i / q8::kGroup] += code;
      fine[i / q8::kFineGroup] += code;
    }
    for (size_t group = 0; group < fine.size(); ++group)
      CHECK(read(row, q8::fine_sums_offset(columns) + 4 * group) == fine[group]);
    CHECK(read(row, q8::total_offset(columns)) == total);
    for (size_t group = 0; group < sums.size(); ++group)
      CHECK(read(row, q8::sums_offset(columns) + 4 * group) == sums[group]);
  }

  // Ties go to even; the largest magnitude is 127, so codes are the values.
  const std::vector<std::byte> ties = quantize({-127.0f, 0.5f, 1.5f, -0.5f, -2.5f, 3.5f, 126.5f});
  const std::vector<int> even = {-127, 0, 2, 0, -2, 4, 126};
  for (size_t i = 0; i < even.size(); ++i) CHECK(reference::codes_of(ties.data(), 7)[i] == even[i]);

  // Nothing in the row, nothing that float32 can scale, and values so small that the scale is subnormal.
  for (const float tiny : {0.0f, 0x1p-149f}) {
    const std::vector<std::byte> row = quantize({tiny, -tiny, 0.0f});
    CHECK(reference::scale_of(row.data(), 3) == 0.0f);
    CHECK(reference::codes_of(row.data(), 3)[0] == 0);
  }
  const std::vector<std::byte> subnormal = quantize({190 * 0x1p-149f, -190 * 0x1p-149f});
  CHECK(reference::scale_of(subnormal.data(), 2) == 0x1p-149f);
  CHECK(reference::codes_of(subnormal.data(), 2)[0] == 127);
  CHECK(reference::codes_of(subnormal.data(), 2)[1] == -127);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<std::byte> row = quantize({1.0f, bad, 2.0f});
    CHECK(std::isnan(reference::scale_of(row.data(), 3)));
    for (const int8_t code : reference::codes_of(row.data(), 3)) CHECK(code == 0);
  }
}
