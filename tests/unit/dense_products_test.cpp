// Products of plain float matrices on every instruction set of this machine, against sums in float64.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "backends/cpu/instruction_sets.h"
#include "gguf-like-format/float_types.h"

using namespace tessera;

namespace {

using Random = std::mt19937_64;

Random fresh_random() {
  const uint64_t seed = std::random_device{}();
  std::cout << "dense products: seed " << seed << '\n';
  return Random(seed);
}

std::vector<float> normal(Random& random, size_t count) {
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

struct Case {
  size_t m, n, k;
  size_t a_stride, b_stride, out_stride;
  bool accumulate;
  DenseProduct::Precision precision;
};

// Largest error over the bound. A result sums k products (and what was there before) in f32: k roundings of
// at most half an ulp of the sum of magnitudes, plus those of the products.
double worst_error(DenseProducts& products, const Case& c, Random& random, std::vector<float>& out) {
  const std::vector<float> a = normal(random, c.m * c.a_stride + 1);
  const std::vector<float> b = normal(random, c.n * c.b_stride + 1);
  const std::vector<float> before = normal(random, c.m * c.out_stride + 1);
  out = before;
  if (!c.accumulate) {  // a value that is never written must show
    for (size_t row = 0; row < c.m; ++row)
      for (size_t n = 0; n < c.n; ++n) out[row * c.out_stride + n] = std::numeric_limits<float>::quiet_NaN();
  }
  products.multiply({a.data(), c.a_stride, c.m, b.data(), c.b_stride, c.n, c.k, out.data(), c.out_stride,
                     c.accumulate, c.precision});
  const auto factor = [&](float value) {
    return static_cast<double>(c.precision == DenseProduct::Precision::f32 ? value
                                                                           : bf16_to_f32(f32_to_bf16(value)));
  };
  double worst = 0;
  for (size_t row = 0; row < c.m; ++row) {
    for (size_t n = 0; n < c.out_stride; ++n) {
      const size_t at = row * c.out_stride + n;
      if (n >= c.n) {  // between the rows nothing may change
        if (std::memcmp(&out[at], &before[at], sizeof(float)) != 0) return 1e30;
        continue;
      }
      double sum = c.accumulate ? static_cast<double>(before[at]) : 0.0;
      double magnitude = std::abs(sum);
      for (size_t i = 0; i < c.k; ++i) {
        const double term = factor(a[row * c.a_stride + i]) * factor(b[n * c.b_stride + i]);
        sum += term;
        magnitude += std::abs(term);
      }
      const double bound = (static_cast<double>(c.k) + 2) * 0x1p-24 * magnitude + 1e-37;
      const double error = std::abs(static_cast<double>(out[at]) - sum) / bound;
      worst = std::isnan(error) ? 1e30 : std::max(worst, error);
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("products equal sums in float64 at odd sizes, strides and with what was there before") {
  Random random = fresh_random();
  const auto pick = [&](size_t low, size_t high) {
    return std::uniform_int_distribution<size_t>(low, high)(random);
  };
  for (const cpu::Kernels* kernels : cpu::usable_kernels()) {
    for (const size_t threads : {size_t{1}, size_t{2}, size_t{3}}) {
      const auto products = cpu::make_dense_products(*kernels, threads);
      REQUIRE(products->threads() == threads);
      std::vector<Case> cases;
      for (const auto precision : {DenseProduct::Precision::f32, DenseProduct::Precision::bf16}) {
        for (size_t i = 0; i < 6; ++i) {
          const size_t k = pick(1, 700);
          const size_t n = pick(1, 90);
          cases.push_back(
              {pick(1, 150), n, k, k + pick(0, 9), k + pick(0, 9), n + pick(0, 9), i % 2 == 0, precision});
        }
        cases.push_back({9, 17, 512, 512, 1024, 33, true, precision});  // rows a power of two apart
        cases.push_back({3, 2100, 5, 5, 6, 2100, false, precision});    // more panels than one round packs
        cases.push_back({1, 1, 1, 1, 1, 1, false, precision});
        cases.push_back({4, 3, 0, 2, 2, 5, false, precision});  // empty sums
        cases.push_back({4, 3, 0, 2, 2, 5, true, precision});
      }
      for (const Case& c : cases) {
        CAPTURE(kernels->name);
        CAPTURE(c.m);
        CAPTURE(c.n);
        CAPTURE(c.k);
        std::vector<float> out;
        CHECK(worst_error(*products, c, random, out) <= 1.0);
      }
    }
  }
}

TEST_CASE("a result does not depend on the number of threads") {
  const uint64_t seed = std::random_device{}();
  std::cout << "dense products: seed " << seed << '\n';
  for (const cpu::Kernels* kernels : cpu::usable_kernels()) {
    for (const auto precision : {DenseProduct::Precision::f32, DenseProduct::Precision::bf16}) {
      std::vector<std::vector<float>> results;
      for (const size_t threads : {size_t{1}, size_t{2}, size_t{5}}) {
        Random random(seed);
        const auto products = cpu::make_dense_products(*kernels, threads);
        CHECK(worst_error(*products, {137, 83, 611, 611, 612, 83, true, precision}, random,
                          results.emplace_back()) <= 1.0);
      }
      CAPTURE(kernels->name);
      CHECK(std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(float)) == 0);
      CHECK(std::memcmp(results[0].data(), results[2].data(), results[0].size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("for_each runs every task once on threads below the count") {
  for (const size_t threads : {size_t{0}, size_t{1}, size_t{4}}) {
    const auto products = make_cpu_dense_products(threads);
    if (threads != 0) REQUIRE(products->threads() == threads);
    for (const size_t count : {size_t{0}, size_t{1}, size_t{997}}) {
      std::vector<size_t> runs(count, 0);
      std::vector<size_t> by_thread(products->threads(), 0);
      products->for_each(count, [&](size_t task, size_t thread) {
        ++runs.at(task);
        ++by_thread.at(thread);
      });
      CHECK(std::all_of(runs.begin(), runs.end(), [](size_t n) { return n == 1; }));
      size_t total = 0;
      for (const size_t n : by_thread) total += n;
      CHECK(total == count);
    }
  }
}
