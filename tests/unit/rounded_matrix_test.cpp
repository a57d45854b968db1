// Clipped rounding, the clip search and error feedback against plain statements of what they do.
#include "engine/quantize/qoq/rounded_matrix.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/codec/matrix_codec.h"
#include "engine/codec/row_levels.h"
#include "engine/quantize/calibration/moment_factor.h"
#include "engine/quantize/qoq/error_feedback.h"
#include "gguf-like-format/tile_layout.h"

using namespace tessera;
using namespace tessera::quantize;

namespace {

using Random = std::mt19937_64;

constexpr std::array kIntegerSchemes{Scheme::w4a8_g128, Scheme::w4a8, Scheme::w8a8};

Random fresh_random() {
  const uint64_t seed = std::random_device{}();
  std::cout << "rounded matrix: seed " << seed << '\n';
  return Random(seed);
}

// Heavy-tailed weights.
FloatMatrix random_weights(Random& random, size_t rows, size_t columns) {
  std::student_t_distribution<float> distribution(4.0f);
  FloatMatrix result(rows, columns);
  for (float& value : result.values) value = 0.05f * distribution(random);
  return result;
}

// Inputs whose columns are correlated and of very different size.
FloatMatrix random_inputs(Random& random, size_t tokens, size_t columns) {
  std::normal_distribution<float> normal;
  const size_t sources = columns / 4 + 1;
  std::vector<float> mixing(sources * columns);
  for (float& value : mixing) value = normal(random);
  std::vector<float> size(columns);
  for (float& value : size) value = std::exp(normal(random)) / std::sqrt(static_cast<float>(sources));
  FloatMatrix result(tokens, columns);
  std::vector<float> source(sources);
  for (size_t t = 0; t < tokens; ++t) {
    for (float& value : source) value = normal(random);
    for (size_t c = 0; c < columns; ++c) {
      float sum = 0.3f * normal(random);
      for (size_t s = 0; s < sources; ++s) sum += source[s] * mixing[s * columns + c];
      result.row(t)[c] = sum * size[c];
    }
  }
  return result;
}

std::vector<float> random_clips(Random& random, size_t rows) {
  std::uniform_real_distribution<float> distribution(0.2f, 1.0f);
  std::vector<float> clips(rows);
  for (float& clip : clips) clip = distribution(random);
  return clips;
}

std::vector<std::byte> stored_room(Scheme scheme, const FloatMatrix& weights) {
  const std::array<uint64_t, 2> shape{weights.rows, weights.columns};
  return std::vector<std::byte>(stored_bytes(scheme, shape).value(), std::byte{0xa5});
}

FloatMatrix decoded(Scheme scheme, const FloatMatrix& like, const std::vector<std::byte>& stored) {
  FloatMatrix result(like.rows, like.columns);
  std::vector<double> row(like.columns);
  for (size_t r = 0; r < like.rows; ++r) {
    decode_row(scheme, like.rows, like.columns, stored, r, row);
    for (size_t c = 0; c < like.columns; ++c) result.row(r)[c] = static_cast<float>(row[c]);
  }
  return result;
}

// sum over sample rows of ((w - rounded) . x)^2 for one row.
double output_error(const FloatMatrix& weights, const FloatMatrix& other, size_t row,
                    const FloatMatrix& inputs) {
  double error = 0;
  for (size_t t = 0; t < inputs.rows; ++t) {
    double sum = 0;
    for (size_t c = 0; c < weights.columns; ++c) {
      const double difference =
          static_cast<double>(weights.row(row)[c]) - static_cast<double>(other.row(row)[c]);
      sum += difference * static_cast<double>(inputs.row(t)[c]);
    }
    error += sum * sum;
  }
  return error;
}

double total_error(const FloatMatrix& weights, const FloatMatrix& other, const FloatMatrix& inputs) {
  double error = 0;
  for (size_t row = 0; row < weights.rows; ++row) error += output_error(weights, other, row, inputs);
  return error;
}

InputStatistics statistics_of(DenseProducts& products, const FloatMatrix& inputs) {
  InputStatistics statistics(inputs.columns, inputs.rows, 0, true);
  statistics.add(products, inputs.values, inputs.rows);
  return statistics;
}

double moment(const FloatMatrix& moments, size_t i, size_t j) {
  return static_cast<double>(i >= j ? moments.row(i)[j] : moments.row(j)[i]);
}

// The damped moments in the factor's order, in float64.
std::vector<double> damped(const FloatMatrix& moments, const std::vector<uint32_t>& order) {
  const size_t n = order.size();
  double mean = 0;
  for (size_t i = 0; i < n; ++i) mean += moment(moments, i, i) / static_cast<double>(n);
  std::vector<double> matrix(n * n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j)
      matrix[i * n + j] = moment(moments, order[i], order[j]) + (i == j ? 0.01 * mean : 0.0);
  return matrix;
}

// GPTQ as its authors state it, in float64: H^-1 = U^T U; each error, divided by the diagonal of U, times the
// row of U is taken from the columns that follow.
std::vector<uint8_t> published_feedback(const FloatMatrix& weights, const std::vector<RowLevels>& levels,
                                        const FloatMatrix& moments, const std::vector<uint32_t>& order) {
  const size_t n = order.size();
  std::vector<double> a = damped(moments, order);
  std::vector<double> inverse(n * n);
  for (size_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (size_t p = 0; p < n; ++p) {  // Gauss-Jordan; a positive definite matrix needs no exchange of rows
    const double pivot = a[p * n + p];
    for (size_t j = 0; j < n; ++j) {
      a[p * n + j] /= pivot;
      inverse[p * n + j] /= pivot;
    }
    for (size_t i = 0; i < n; ++i) {
      const double factor = a[i * n + p];
      if (i == p || factor == 0) continue;
      for (size_t j = 0; j < n; ++j) {
        a[i * n + j] -= factor * a[p * n + j];
        inverse[i * n + j] -= factor * inverse[p * n + j];
      }
    }
  }
  std::vector<double> u(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      double sum = inverse[i * n + j];
      for (size_t k = 0; k < i; ++k) sum -= u[k * n + i] * u[k * n + j];
      u[i * n + j] = i == j ? std::sqrt(sum) : sum / u[i * n + i];
    }
  }
  std::vector<uint8_t> codes(weights.rows * n);
  for (size_t row = 0; row < weights.rows; ++row) {
    std::vector<double> w(n);
    for (size_t i = 0; i < n; ++i) w[i] = static_cast<double>(weights.row(row)[order[i]]);
    for (size_t i = 0; i < n; ++i) {
      const RowLevels::Group group = levels[row].group_of(order[i]);
      const int32_t code = levels[row].code(static_cast<float>(w[i]), group);
      codes[row * n + order[i]] = static_cast<uint8_t>(code);
      const double error = (w[i] - static_cast<double>(levels[row].meaning(code, group))) / u[i * n + i];
      for (size_t j = i + 1; j < n; ++j) w[j] -= error * u[i * n + j];
    }
  }
  return codes;
}

std::vector<RowLevels> plain_levels(Scheme scheme, const FloatMatrix& weights) {
  std::vector<RowLevels> levels(weights.rows);
  for (size_t row = 0; row < weights.rows; ++row) fit_levels(scheme, weights.row(row), 1.0f, levels[row]);
  return levels;
}

size_t differing(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  REQUIRE(a.size() == b.size());
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
  return count;
}

}  // namespace

TEST_CASE("what rounded_to_rows returns is what encode_rows_of stores, with clips and without") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(3);
  for (const Scheme scheme :
       {Scheme::w4a8_g128, Scheme::w4a8, Scheme::w8a8, Scheme::f32, Scheme::f16, Scheme::bf16}) {
    for (const auto& [rows, columns] : {std::pair<size_t, size_t>{1, 1}, {37, 300}, {16, 128}, {50, 65}}) {
      FloatMatrix weights = random_weights(random, rows, columns);
      if (rows > 3) std::fill(weights.row(3).begin(), weights.row(3).end(), 0.0f);
      std::vector<std::byte> plain = stored_room(scheme, weights);
      encode_rows_of(*products, scheme, weights, {}, nullptr, plain);
      std::vector<std::byte> expected = stored_room(scheme, weights);
      encode_rows(scheme, rows, columns, 0, rows, weights.values, expected);
      CAPTURE(scheme_name(scheme));
      CHECK(plain == expected);
      CHECK(rounded_to_rows(*products, scheme, weights, {}).values == decoded(scheme, weights, plain).values);

      const std::vector<float> clips = random_clips(random, rows);
      std::vector<std::byte> clipped = stored_room(scheme, weights);
      encode_rows_of(*products, scheme, weights, clips, nullptr, clipped);
      CHECK(rounded_to_rows(*products, scheme, weights, clips).values ==
            decoded(scheme, weights, clipped).values);
      if (activation_type(scheme) == ActivationType::int8 && columns > 64) CHECK(clipped != plain);
    }
  }
}

TEST_CASE("clipping narrows the range by the ratio") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(1);
  const FloatMatrix weights = random_weights(random, 33, 384);
  for (const Scheme scheme : kIntegerSchemes) {
    for (const float clip : {0.2f, 0.5f, 0.93f}) {
      const FloatMatrix result =
          rounded_to_rows(*products, scheme, weights, std::vector<float>(weights.rows, clip));
      for (size_t row = 0; row < weights.rows; ++row) {
        const float largest = rounding::largest_magnitude(weights.row(row));
        const float kept = rounding::largest_magnitude(result.row(row));
        CHECK(kept <= largest * (clip * 127.0f / 119.0f + 1.0f / 15.0f));
        if (scheme != Scheme::w8a8) continue;
        // Inside the range a value moves by half a step at most.
        float moved = 0;
        for (size_t c = 0; c < weights.columns; ++c) {
          const float value = weights.row(row)[c];
          if (std::abs(value) < clip * largest) moved = std::max(moved, std::abs(value - result.row(row)[c]));
        }
        CHECK(moved <= 0.5001f * clip * largest / 127.0f);
      }
    }
  }
}

TEST_CASE("the clip search takes the ratio of the smallest output error") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(2);
  for (const Scheme scheme : kIntegerSchemes) {
    const FloatMatrix weights = random_weights(random, 19, 200);
    const FloatMatrix sample = random_inputs(random, 41, 200);
    const std::vector<float> clips = search_row_clips(*products, scheme, weights, sample);
    REQUIRE(clips.size() == weights.rows);
    std::vector<double> best(weights.rows, 1e300);
    for (int g = 0; g <= 80; ++g) {
      const auto ratio = static_cast<float>(1.0 - 0.8 * g / 80.0);
      const FloatMatrix result =
          rounded_to_rows(*products, scheme, weights, std::vector<float>(weights.rows, ratio));
      for (size_t row = 0; row < weights.rows; ++row)
        best[row] = std::min(best[row], output_error(weights, result, row, sample));
    }
    const FloatMatrix chosen = rounded_to_rows(*products, scheme, weights, clips);
    size_t below_one = 0;
    size_t missed = 0;  // the search ends early for a row when clipping seems hopeless, seldom too early
    for (size_t row = 0; row < weights.rows; ++row) {
      if (output_error(weights, chosen, row, sample) > best[row] * (1 + 1e-4)) ++missed;
      below_one += clips[row] < 1.0f;
    }
    CAPTURE(scheme_name(scheme));
    CHECK(missed <= 2);
    if (scheme != Scheme::w8a8) CHECK(below_one > weights.rows / 2);
  }
  const FloatMatrix weights = random_weights(random, 5, 64);
  // The weights' own error is that of an output for each input alone.
  FloatMatrix unit(64, 64);
  for (size_t i = 0; i < unit.rows; ++i) unit.row(i)[i] = 1.0f;
  for (const Scheme scheme : kIntegerSchemes)
    CHECK(search_row_clips(*products, scheme, weights) == search_row_clips(*products, scheme, weights, unit));
  CHECK(search_row_clips(*products, Scheme::f16, weights) == std::vector<float>(5, 1.0f));
  CHECK(search_row_clips(*products, Scheme::bf16, weights, random_inputs(random, 4, 64)) ==
        std::vector<float>(5, 1.0f));
}

TEST_CASE("the factor's shares multiply back to the damped moments") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(2);
  // The last has more columns than one block: its blocks are coupled by f32 products.
  for (const size_t n : {size_t{1}, size_t{2}, size_t{33}, size_t{300}, kFactorBlock + 75}) {
    const FloatMatrix inputs = random_inputs(random, n > 500 ? 200 : n + 20, n);
    const InputStatistics statistics = statistics_of(*products, inputs);
    const MomentFactor factor = factor_moments(*products, statistics.moments);
    REQUIRE(factor.order.size() == n);
    for (size_t i = 1; i < n; ++i)
      REQUIRE(moment(statistics.moments, factor.order[i - 1], factor.order[i - 1]) >=
              moment(statistics.moments, factor.order[i], factor.order[i]));
    // M = S^T D S with S the shares and a diagonal of ones; take D's part away row by row, from the last.
    std::vector<double> left = damped(statistics.moments, factor.order);
    std::vector<double> diagonal(n);
    for (size_t i = 0; i < n; ++i) diagonal[i] = left[i * n + i];
    double worst = 0;
    size_t above = 0;
    for (size_t j = n; j-- > 0;) {
      const double pivot = left[j * n + j];
      REQUIRE(pivot > 0);
      for (size_t c = j; c < n; ++c) above += factor.shares.row(j)[c] != 0.0f;
      for (size_t a = 0; a < j; ++a) {
        const double share = static_cast<double>(factor.shares.row(j)[a]);
        worst =
            std::max(worst, std::abs(left[j * n + a] - pivot * share) / std::sqrt(diagonal[a] * diagonal[j]));
        for (size_t b = 0; b <= a; ++b)
          left[a * n + b] -= pivot * share * static_cast<double>(factor.shares.row(j)[b]);
      }
    }
    CAPTURE(n);
    CHECK(worst <= 1e-5);
    CHECK(above == 0);
  }
}

TEST_CASE("feedback is a fixed chain, equal to GPTQ as published up to roundings") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(2);
  for (const Scheme scheme : kIntegerSchemes) {
    const FloatMatrix weights = random_weights(random, 21, 203);
    const FloatMatrix inputs = random_inputs(random, 250, 203);
    const InputStatistics statistics = statistics_of(*products, inputs);
    const MomentFactor factor = factor_moments(*products, statistics.moments);
    const std::vector<RowLevels> levels = plain_levels(scheme, weights);
    const std::vector<uint8_t> codes = codes_with_feedback(*products, weights, levels, factor);

    std::vector<uint8_t> chain(codes.size());
    for (size_t row = 0; row < weights.rows; ++row) {
      std::vector<float> w;
      for (const uint32_t column : factor.order) w.push_back(weights.row(row)[column]);
      for (size_t i = 0; i < w.size(); ++i) {
        const size_t column = factor.order[i];
        const RowLevels::Group group = levels[row].group_of(column);
        const int32_t code = levels[row].code(w[i], group);
        chain[row * weights.columns + column] = static_cast<uint8_t>(code);
        const float error = weights.row(row)[column] - levels[row].meaning(code, group);
        for (size_t j = i + 1; j < w.size(); ++j) {
          const float part = error * factor.shares.row(j)[i];
          w[j] = w[j] + part;
        }
      }
    }
    CAPTURE(scheme_name(scheme));
    CHECK(codes == chain);
    // A weight within a rounding of an edge may fall on the other side, and its row then goes its own way.
    const auto published = published_feedback(weights, levels, statistics.moments, factor.order);
    CHECK(differing(codes, published) <= codes.size() / 20);
  }
}

TEST_CASE("feedback lowers the output error, also where blocks of columns are coupled") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(2);
  for (const size_t columns : {size_t{300}, kFactorBlock + 131}) {
    const FloatMatrix weights = random_weights(random, 18, columns);
    const FloatMatrix inputs = random_inputs(random, 400, columns);
    const InputStatistics statistics = statistics_of(*products, inputs);
    for (const Scheme scheme : kIntegerSchemes) {
      const std::vector<float> clips(weights.rows, scheme == Scheme::w8a8 ? 1.0f : 0.93f);
      std::vector<std::byte> stored = stored_room(scheme, weights);
      encode_rows_of(*products, scheme, weights, clips, &statistics, stored);
      const double plain = total_error(weights, rounded_to_rows(*products, scheme, weights, clips), inputs);
      const double with_feedback = total_error(weights, decoded(scheme, weights, stored), inputs);
      CAPTURE(scheme_name(scheme));
      CAPTURE(columns);
      CHECK(with_feedback < 0.7 * plain);
      if (columns > kFactorBlock && scheme == Scheme::w4a8) {
        const MomentFactor factor = factor_moments(*products, statistics.moments);
        std::vector<RowLevels> levels(weights.rows);
        for (size_t row = 0; row < weights.rows; ++row)
          fit_levels(scheme, weights.row(row), clips[row], levels[row]);
        const auto codes = codes_with_feedback(*products, weights, levels, factor);
        const auto published = published_feedback(weights, levels, statistics.moments, factor.order);
        CHECK(differing(codes, published) <= codes.size() / 20);
      }
    }
  }
}

TEST_CASE("inputs that were never used have no part in feedback") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(1);
  const FloatMatrix weights = random_weights(random, 9, 150);
  FloatMatrix inputs = random_inputs(random, 300, 150);
  for (size_t t = 0; t < inputs.rows; ++t) inputs.row(t)[7] = inputs.row(t)[149] = 0.0f;
  const InputStatistics statistics = statistics_of(*products, inputs);
  const MomentFactor factor = factor_moments(*products, statistics.moments);
  const std::vector<RowLevels> levels = plain_levels(Scheme::w4a8_g128, weights);
  const auto codes = codes_with_feedback(*products, weights, levels, factor);
  for (size_t row = 0; row < weights.rows; ++row) {
    std::vector<uint8_t> plain(150);
    levels[row].encode(0, weights.row(row), plain);
    CHECK(codes[row * 150 + 7] == plain[7]);
    CHECK(codes[row * 150 + 149] == plain[149]);
  }

  const InputStatistics nothing(150, 0, 0, true);
  std::vector<std::byte> plain = stored_room(Scheme::w4a8_g128, weights);
  std::vector<std::byte> stored = plain;
  encode_rows_of(*products, Scheme::w4a8_g128, weights, {}, nullptr, plain);
  encode_rows_of(*products, Scheme::w4a8_g128, weights, {}, &nothing, stored);
  CHECK(stored == plain);
}

TEST_CASE("moments that cannot be factored are refused") {
  const auto products = make_cpu_dense_products(1);
  FloatMatrix moments(3, 3);
  for (size_t i = 0; i < 3; ++i) moments.row(i)[i] = 1.0f;
  CHECK_NOTHROW(factor_moments(*products, moments));
  moments.row(2)[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(factor_moments(*products, moments), std::runtime_error);
  moments.row(2)[0] = 5.0f;  // no sum of squares has a correlation above 1
  CHECK_THROWS_AS(factor_moments(*products, moments), std::runtime_error);
  moments.row(2)[0] = 1.05f;  // more damping helps
  CHECK_NOTHROW(factor_moments(*products, moments));
  moments.row(1)[1] = -1.0f;
  CHECK_THROWS_WITH(factor_moments(*products, moments), doctest::Contains("input column 1"));
  moments.row(1)[1] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(factor_moments(*products, moments), std::runtime_error);
}

TEST_CASE("clips and codes do not depend on the number of threads") {
  Random random = fresh_random();
  const FloatMatrix weights = random_weights(random, 40, kFactorBlock + 40);
  const FloatMatrix inputs = random_inputs(random, 70, weights.columns);
  std::vector<std::vector<float>> clips;
  std::vector<std::vector<std::byte>> stored;
  for (const size_t threads : {size_t{1}, size_t{3}}) {
    const auto products = make_cpu_dense_products(threads);
    clips.push_back(search_row_clips(*products, Scheme::w4a8_g128, weights, inputs));
    stored.push_back(stored_room(Scheme::w4a8_g128, weights));
    const InputStatistics statistics = statistics_of(*products, inputs);
    encode_rows_of(*products, Scheme::w4a8_g128, weights, clips.back(), &statistics, stored.back());
  }
  CHECK(clips[0] == clips[1]);
  CHECK(stored[0] == stored[1]);
}
