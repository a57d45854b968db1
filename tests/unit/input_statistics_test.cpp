// What calibration remembers of a layer's inputs, against sums in float64.
#include "engine/quantize/calibration/input_statistics.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <vector>

#include "backends/cpu/dense_products.h"

using namespace tessera;
using quantize::InputStatistics;

namespace {

using Random = std::mt19937_64;

Random fresh_random() {
  const uint64_t seed = std::random_device{}();
  std::cout << "input statistics: seed " << seed << '\n';
  return Random(seed);
}

std::vector<float> normal(Random& random, size_t count) {
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

// Feeds x in uneven blocks.
void feed(InputStatistics& statistics, DenseProducts& products, Random& random, const std::vector<float>& x,
          size_t columns) {
  const size_t tokens = x.size() / columns;
  for (size_t first = 0; first < tokens;) {
    const size_t count = std::min(tokens - first, std::uniform_int_distribution<size_t>(0, 90)(random));
    statistics.add(products, std::span(x).subspan(first * columns, count * columns), count);
    first += count;
  }
}

}  // namespace

TEST_CASE("moments and largest inputs equal plain sums") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(2);
  for (const size_t columns : {size_t{1}, size_t{37}, size_t{70}, size_t{515}}) {
    const size_t tokens = std::uniform_int_distribution<size_t>(1, 250)(random);
    const std::vector<float> x = normal(random, tokens * columns);
    InputStatistics statistics(columns, tokens, 5, true);
    feed(statistics, *products, random, x, columns);
    CHECK(statistics.tokens == tokens);
    REQUIRE(statistics.moments.rows == columns);
    REQUIRE(statistics.moments.columns == columns);
    double worst = 0;
    for (size_t i = 0; i < columns; ++i) {
      float most = 0;
      for (size_t t = 0; t < tokens; ++t) most = std::max(most, std::abs(x[t * columns + i]));
      CHECK(statistics.largest[i] == most);
      for (size_t j = 0; j <= i; ++j) {
        double sum = 0;
        double magnitude = 0;
        for (size_t t = 0; t < tokens; ++t) {
          const double term =
              static_cast<double>(x[t * columns + i]) * static_cast<double>(x[t * columns + j]);
          sum += term;
          magnitude += std::abs(term);
        }
        const double bound = static_cast<double>(tokens + 2) * 0x1p-24 * magnitude;
        worst = std::max(worst, std::abs(static_cast<double>(statistics.moments.row(i)[j]) - sum) / bound);
      }
    }
    CAPTURE(columns);
    CHECK(worst <= 1.0);
  }
}

TEST_CASE("the sample holds tokens spread evenly over the text, whatever the blocks") {
  Random random = fresh_random();
  const auto products = make_cpu_dense_products(1);
  constexpr size_t kColumns = 3;
  for (const size_t tokens : {size_t{1}, size_t{7}, size_t{100}, size_t{333}}) {
    for (const size_t rows : {size_t{0}, size_t{1}, size_t{7}, size_t{64}, size_t{500}}) {
      std::vector<float> x(tokens * kColumns);
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
      InputStatistics statistics(kColumns, tokens, rows, false);
      feed(statistics, *products, random, x, kColumns);
      CHECK(statistics.moments.rows == 0);
      const size_t kept = std::min(rows, tokens);
      REQUIRE(statistics.sample.rows == kept);
      double before = -1;
      for (size_t i = 0; i < kept; ++i) {
        const auto token = static_cast<double>(statistics.sample.row(i)[0]) / kColumns;
        CHECK(statistics.sample.row(i)[2] == statistics.sample.row(i)[0] + 2);
        CHECK(token > before);
        // The middle of its stretch, to within one token.
        const double middle =
            (static_cast<double>(i) + 0.5) * static_cast<double>(tokens) / static_cast<double>(kept);
        CHECK(std::abs(token - middle) <= 1.0);
        before = token;
      }
    }
  }
}

TEST_CASE("statistics do not depend on the number of threads") {
  const uint64_t seed = std::random_device{}();
  std::cout << "input statistics: seed " << seed << '\n';
  std::vector<InputStatistics> results;
  for (const size_t threads : {size_t{1}, size_t{3}}) {
    Random random(seed);
    const auto products = make_cpu_dense_products(threads);
    const std::vector<float> x = normal(random, size_t{150} * 130);
    feed(results.emplace_back(130, 150, 20, true), *products, random, x, 130);
  }
  CHECK(results[0].moments.values == results[1].moments.values);
  CHECK(results[0].sample.values == results[1].sample.values);
  CHECK(results[0].largest == results[1].largest);
}
