// How tables and scales are chosen: each choice against what it must not be worse than, on fresh random
// matrices with heavy tails.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/codec/matrix_codec.h"
#include "engine/codec/normal_float.h"
#include "engine/quantize/calibration/moment_factor.h"
#include "engine/quantize/lut/kmeans_table.h"
#include "engine/quantize/lut/scale_search.h"
#include "engine/quantize/lut/table_matrix.h"
#include "engine/quantize/lut/trained_scales.h"
#include "engine/quantize/qoq/error_feedback.h"

using namespace tessera;
using quantize::FloatMatrix;
using quantize::InputStatistics;

namespace {

std::mt19937& random_source() {
  static std::mt19937 generator = [] {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    return std::mt19937(seed);
  }();
  return generator;
}

FloatMatrix heavy_tailed(size_t rows, size_t columns) {
  std::student_t_distribution<float> tailed(4.0f);
  FloatMatrix matrix(rows, columns);
  for (float& value : matrix.values) value = 0.02f * tailed(random_source());
  return matrix;
}

// Inputs that have much in common, and channels of different sizes.
FloatMatrix correlated_inputs(size_t count, size_t columns) {
  std::normal_distribution<float> normal;
  std::vector<float> sizes(columns);
  for (float& size : sizes) size = std::exp2(normal(random_source()));
  FloatMatrix inputs(count, columns);
  for (size_t t = 0; t < count; ++t) {
    float common = 0;
    for (size_t i = 0; i < columns; ++i) {
      common = 0.8f * common + 0.6f * normal(random_source());
      inputs.row(t)[i] = sizes[i] * common;
    }
  }
  return inputs;
}

InputStatistics statistics_of(DenseProducts& products, const FloatMatrix& inputs) {
  InputStatistics statistics(inputs.columns, inputs.rows, 16, true);
  statistics.add(products, inputs.values, inputs.rows);
  return statistics;
}

std::vector<TableFormat> formats() {
  std::vector<TableFormat> all;
  for (const Scheme scheme : matrix_schemes())
    if (const auto format = table_format(scheme)) all.push_back(*format);
  return all;
}

std::string name_of(const TableFormat& format) { return std::string(scheme_name(table_scheme(format))); }

struct Table {
  ValueTable table;
  const ValueTable* pointer = nullptr;  // null with zero points

  explicit Table(const TableFormat& format) {
    if (format.zero_points) return;
    table = lut::normal_float(format);
    pointer = &table;
  }
};

double weighted_error(const TableLevels& levels, size_t first, std::span<const float> values,
                      std::span<const float> importance) {
  double error = 0;
  for (size_t i = first; i < values.size() && i < first + levels.group_columns; ++i) {
    const TableLevels::Group& group = levels.group_of(i);
    const double difference = static_cast<double>(values[i]) -
                              static_cast<double>(levels.meaning(levels.code(values[i], group), group));
    error += (importance.empty() ? 1.0 : static_cast<double>(importance[i])) * difference * difference;
  }
  return error;
}

double power_of(size_t first, size_t count, std::span<const float> values,
                std::span<const float> importance) {
  double power = 0;
  for (size_t i = first; i < values.size() && i < first + count; ++i)
    power += (importance.empty() ? 1.0 : static_cast<double>(importance[i])) *
             static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return power;
}

FloatMatrix decoded(Scheme scheme, const FloatMatrix& shape, std::span<const std::byte> stored) {
  FloatMatrix out(shape.rows, shape.columns);
  std::vector<double> row(shape.columns);
  for (size_t i = 0; i < shape.rows; ++i) {
    decode_row(scheme, shape.rows, shape.columns, stored, i, row);
    std::transform(row.begin(), row.end(), out.row(i).begin(),
                   [](double value) { return static_cast<float>(value); });
  }
  return out;
}

double output_error(const FloatMatrix& a, const FloatMatrix& b, const FloatMatrix& inputs) {
  double error = 0;
  for (size_t t = 0; t < inputs.rows; ++t) {
    for (size_t row = 0; row < a.rows; ++row) {
      double sum = 0;
      for (size_t i = 0; i < a.columns; ++i)
        sum += static_cast<double>(inputs.row(t)[i]) *
               (static_cast<double>(a.row(row)[i]) - static_cast<double>(b.row(row)[i]));
      error += sum * sum;
    }
  }
  return error;
}

std::vector<std::byte> room(Scheme scheme, const FloatMatrix& weights) {
  return std::vector<std::byte>(
      stored_bytes(scheme, std::array<uint64_t, 2>{weights.rows, weights.columns}).value(), std::byte{0x5a});
}

}  // namespace

TEST_CASE("the scale search is never worse than any scale of its grid, with importance and without") {
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  for (const TableFormat& format : formats()) {
    const Table table(format);
    for (const size_t columns : {size_t{1}, size_t{45}, size_t{301}}) {
      const FloatMatrix weights = heavy_tailed(6, columns);
      for (const bool weighted : {false, true}) {
        std::vector<float> importance(weighted ? columns : 0);
        for (float& each : importance) each = std::exp2(8 * uniform(random_source()));
        size_t worse = 0;
        for (size_t row = 0; row < weights.rows; ++row) {
          const std::span<const float> values = weights.row(row);
          TableLevels plain, found;
          fit_levels(format, table.pointer, values, plain);
          quantize::search_levels(format, table.pointer, values, importance, found);
          REQUIRE(found.groups.size() == plain.groups.size());
          for (size_t first = 0; first < columns; first += format.group) {
            const size_t group = first / format.group;
            // f16 rounds the best scale by up to 2^-12 of itself, and small ones by up to 2^-25.
            const std::vector<float> ones(columns, 1.0f);
            const double slack = 1e-6 * power_of(first, format.group, values, importance) +
                                 0x1p-48 * power_of(first, format.group, ones, importance);
            const double error = weighted_error(found, first, values, importance);
            worse += error > weighted_error(plain, first, values, importance) + slack;
            if (format.zero_points) continue;
            double scale = 1.15 * static_cast<double>(plain.groups[group].scale);
            for (int k = 0; k < 64; ++k, scale *= 0.965) {
              TableLevels other = plain;
              other.groups[group].scale = static_cast<float>(scale);
              worse += error > weighted_error(other, first, values, importance) + slack;
            }
          }
          for (const TableLevels::Group& group : found.groups) {
            worse += group.scale != stored_group_scale(static_cast<double>(group.scale));
            worse += group.zero != stored_group_zero(static_cast<double>(group.zero));
          }
        }
        CAPTURE(name_of(format));
        CAPTURE(columns);
        CAPTURE(weighted);
        CHECK(worse == 0);
      }
    }
  }
}

TEST_CASE("only what counts decides a scale; zeros stay zeros") {
  for (const TableFormat& format : formats()) {
    CAPTURE(name_of(format));
    const Table table(format);
    FloatMatrix weights = heavy_tailed(1, 2 * format.group);
    const auto end = weights.values.begin() + static_cast<std::ptrdiff_t>(format.group);
    weights.values[5] = 0.7f * std::abs(*std::max_element(weights.values.begin(), end));
    std::vector<float> importance(weights.columns, 0.0f);
    importance[5] = 2.0f;  // nothing counts in the second group: it is searched as if everything did
    TableLevels found, plain;
    quantize::search_levels(format, table.pointer, weights.values, importance, found);
    quantize::search_levels(format, table.pointer, weights.values, {}, plain);
    const double value = static_cast<double>(weights.values[5]);
    if (!format.zero_points)
      CHECK(weighted_error(found, 0, weights.values, importance) < 2.0 * 1e-6 * value * value);
    CHECK(found.groups[1].scale == plain.groups[1].scale);
    CHECK(found.groups[1].zero == plain.groups[1].zero);

    std::fill_n(weights.values.begin(), format.group, 0.0f);
    quantize::search_levels(format, table.pointer, weights.values, {}, found);
    CHECK(found.groups[0].scale == 0.0f);
    std::vector<float> rounded(weights.columns, 1.0f);
    found.round(weights.values, rounded);
    CHECK(std::all_of(rounded.begin(), rounded.begin() + static_cast<std::ptrdiff_t>(format.group),
                      [](float each) { return each == 0.0f; }));
  }
}

TEST_CASE("k-means tables beat NormalFloat, find clusters, and can be stored") {
  const auto products = make_cpu_dense_products(2);
  const auto alone = make_cpu_dense_products(1);
  for (const TableFormat& format : formats()) {
    if (format.zero_points) continue;
    CAPTURE(name_of(format));
    const FloatMatrix weights = heavy_tailed(37, 520);
    std::vector<float> importance(weights.columns);
    std::uniform_real_distribution<float> uniform(0.1f, 2.0f);
    for (float& each : importance) each = uniform(random_source());
    for (const bool search : {false, true}) {
      const ValueTable table = quantize::kmeans_table(*products, format, weights, importance, search);
      const ValueTable again = quantize::kmeans_table(*alone, format, weights, importance, search);
      CHECK(table.values == again.values);
      CHECK(table.size == size_t{1} << format.bits);
      CHECK(table.largest == 1.0f);
      size_t unfit = 0;
      for (const float value : table.values)
        unfit += value != stored_entry(format, static_cast<double>(value));
      CHECK(unfit == 0);
      const auto total = [&](const ValueTable& with) {
        double error = 0;
        TableLevels levels;
        for (size_t row = 0; row < weights.rows; ++row) {
          if (search)
            quantize::search_levels(format, &with, weights.row(row), importance, levels);
          else
            fit_levels(format, &with, weights.row(row), levels);
          for (size_t first = 0; first < weights.columns; first += format.group)
            error += weighted_error(levels, first, weights.row(row), importance);
        }
        return error;
      };
      CHECK(total(table) <= total(lut::normal_float(format)));
    }
  }

  // Four narrow clusters, far from the entries of NormalFloat.
  constexpr std::array<float, 4> kCentres{-1.0f, -0.45f, 0.1f, 0.8f};
  TableFormat format;
  format.bits = 2;
  std::uniform_int_distribution<size_t> pick(0, 3);
  std::normal_distribution<float> normal(0.0f, 0.005f);
  FloatMatrix weights(16, 256);
  for (float& value : weights.values) value = kCentres[pick(random_source())] + normal(random_source());
  const ValueTable table = quantize::kmeans_table(*products, format, weights, {}, true);
  for (size_t i = 0; i < 4; ++i) CHECK(table.values[i] == doctest::Approx(kCentres[i]).epsilon(0.05));

  const FloatMatrix zeros(3, 40);
  CHECK(quantize::kmeans_table(*products, format, zeros, {}, true).values ==
        lut::normal_float(format).values);
}

TEST_CASE("trained scales lower the output error that codes alone leave, with any way to choose codes") {
  const auto products = make_cpu_dense_products(2);
  for (const TableFormat& format : formats()) {
    if (format.group != 64) continue;
    CAPTURE(name_of(format));
    const Table table(format);
    const FloatMatrix weights = heavy_tailed(21, 200);
    const FloatMatrix inputs = correlated_inputs(400, 200);
    InputStatistics statistics = statistics_of(*products, inputs);
    FloatMatrix& moments = statistics.moments;
    for (size_t i = 0; i < moments.rows; ++i)
      for (size_t j = i + 1; j < moments.columns; ++j) moments.row(i)[j] = moments.row(j)[i];
    double damping = 0;
    for (size_t i = 0; i < moments.rows; ++i) damping += 0.01 / 200 * static_cast<double>(moments.row(i)[i]);
    const auto objective = [&](size_t row, std::span<const float> meaning) {
      double sum = 0;
      for (size_t i = 0; i < moments.rows; ++i) {
        const double error = static_cast<double>(weights.row(row)[i]) - static_cast<double>(meaning[i]);
        sum += damping * error * error;
        for (size_t j = 0; j < moments.rows; ++j)
          sum += error * static_cast<double>(moments.row(i)[j]) *
                 (static_cast<double>(weights.row(row)[j]) - static_cast<double>(meaning[j]));
      }
      return sum;
    };
    for (const bool feedback : {false, true}) {
      std::vector<TableLevels> levels(weights.rows);
      for (size_t row = 0; row < weights.rows; ++row)
        quantize::search_levels(format, table.pointer, weights.row(row), {}, levels[row]);
      const quantize::MomentFactor factor = quantize::factor_moments(*products, moments);
      const auto choose = [&](std::span<const TableLevels> present) {
        if (feedback) return quantize::codes_with_feedback(*products, weights, present, factor);
        std::vector<uint8_t> codes(weights.values.size());
        for (size_t row = 0; row < weights.rows; ++row)
          present[row].encode(0, weights.row(row), std::span(codes).subspan(row * 200, 200));
        return codes;
      };
      const std::vector<TableLevels> start = levels;
      const std::vector<uint8_t> first_codes = choose(start);
      const std::vector<uint8_t> codes =
          quantize::train_scales(*products, weights, moments, 3, choose, levels);
      size_t worse = 0;
      double before = 0, after = 0;
      std::vector<float> meaning(200);
      for (size_t row = 0; row < weights.rows; ++row) {
        const auto measure = [&](const TableLevels& with, std::span<const uint8_t> chosen) {
          for (size_t i = 0; i < 200; ++i) meaning[i] = with.meaning(chosen[row * 200 + i], with.group_of(i));
          return objective(row, meaning);
        };
        const double former = measure(start[row], first_codes);
        const double now = measure(levels[row], codes);
        worse += now > former * (1 + 1e-3);
        before += former;
        after += now;
        for (const TableLevels::Group& group : levels[row].groups)
          worse += !(group.scale > 0) || group.scale != stored_group_scale(static_cast<double>(group.scale));
      }
      CAPTURE(feedback);
      CHECK(worse == 0);
      CHECK(after < before);
    }
  }
}

TEST_CASE("feedback with tables is the same fixed chain as with row scales") {
  const auto products = make_cpu_dense_products(2);
  for (const TableFormat& format : formats()) {
    if (format.group != 32) continue;
    CAPTURE(name_of(format));
    const Table table(format);
    FloatMatrix weights = heavy_tailed(11, 151);
    std::fill_n(weights.row(4).begin(), 70, 0.0f);  // two groups without a scale
    const FloatMatrix inputs = correlated_inputs(300, 151);
    const InputStatistics statistics = statistics_of(*products, inputs);
    const quantize::MomentFactor factor = quantize::factor_moments(*products, statistics.moments);
    std::vector<TableLevels> levels(weights.rows);
    for (size_t row = 0; row < weights.rows; ++row)
      fit_levels(format, table.pointer, weights.row(row), levels[row]);
    const std::vector<uint8_t> codes = quantize::codes_with_feedback(*products, weights, levels, factor);
    std::vector<uint8_t> chain(codes.size());
    for (size_t row = 0; row < weights.rows; ++row) {
      std::vector<float> w;
      for (const uint32_t column : factor.order) w.push_back(weights.row(row)[column]);
      for (size_t i = 0; i < w.size(); ++i) {
        const size_t column = factor.order[i];
        const TableLevels::Group group = levels[row].group_of(column);
        const int32_t code = levels[row].code(w[i], group);
        chain[row * weights.columns + column] = static_cast<uint8_t>(code);
        const float error = weights.row(row)[column] - levels[row].meaning(code, group);
        for (size_t j = i + 1; j < w.size(); ++j) {
          const float part = error * factor.shares.row(j)[i];
          w[j] = w[j] + part;
        }
      }
    }
    CHECK(codes == chain);
  }
}

TEST_CASE("a stored matrix means what its recipe chose; feedback and training lower the output error") {
  const auto products = make_cpu_dense_products(2);
  const auto alone = make_cpu_dense_products(1);
  for (const TableFormat& format : formats()) {
    if (format.group != 64 && format.group != 256) continue;
    const Scheme scheme = table_scheme(format);
    CAPTURE(std::string(scheme_name(scheme)));
    const FloatMatrix weights = heavy_tailed(35, 320);
    const FloatMatrix inputs = correlated_inputs(500, 320);
    InputStatistics statistics = statistics_of(*products, inputs);
    quantize::TableChoices choices;
    const auto encode = [&](DenseProducts& with, InputStatistics* seen) {
      std::vector<std::byte> stored = room(scheme, weights);
      quantize::encode_with_table(with, scheme, weights, choices, seen, stored);
      return stored;
    };
    const auto error = [&](std::span<const std::byte> stored) {
      return output_error(weights, decoded(scheme, weights, stored), inputs);
    };
    for (const bool search : {false, true}) {
      choices.scale_search = search;
      const FloatMatrix expected = quantize::rounded_to_table(*products, format, weights, search, {});
      const FloatMatrix found = decoded(scheme, weights, encode(*products, nullptr));
      size_t wrong = 0;
      for (size_t i = 0; i < found.values.size(); ++i)  // decoding does not round to f32 halfway
        wrong += std::abs(found.values[i] - expected.values[i]) > 1e-6f * std::abs(expected.values[i]);
      CHECK(wrong == 0);
    }
    const double plain = error(encode(*products, &statistics));
    choices.feedback = true;
    const std::vector<std::byte> fed_back = encode(*products, &statistics);
    CHECK(error(fed_back) < 0.8 * plain);
    choices.train_scales = true;
    const std::vector<std::byte> learned = encode(*products, &statistics);
    CHECK(error(learned) < 0.8 * plain);
    CHECK(learned == encode(*alone, &statistics));
    if (format.zero_points) continue;
    choices.table = quantize::TableKind::kmeans;
    CHECK(error(encode(*products, &statistics)) < 0.8 * plain);
  }
}
