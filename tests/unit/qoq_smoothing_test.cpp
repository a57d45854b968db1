// Reordering and smoothing: their formulas, that they leave a layer's function as it was, and that the
// statistics follow them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/calibrate_layer.h"
#include "engine/quantize/qoq/reorder.h"
#include "engine/quantize/qoq/smooth_attention.h"
#include "engine/quantize/qoq/smooth_outputs.h"
#include "qoq_layers.h"

using namespace tessera;
using namespace tessera::quantize;
using qoq_test::Sizes;

namespace {

constexpr auto kF32 = DenseProduct::Precision::f32;

// A layer, a text that passes through it and what calibration saw.
struct Calibrated {
  std::vector<size_t> windows = {33, 5, 61, 1};
  std::unique_ptr<DenseProducts> products = make_cpu_dense_products(2);
  qoq_test::Layer layer;
  FloatMatrix before, after;
  LayerStatistics statistics;

  Calibrated(std::mt19937& generator, const Sizes& sizes) : layer(qoq_test::random_layer(generator, sizes)) {
    before = qoq_test::random_matrix(generator, std::accumulate(windows.begin(), windows.end(), size_t{0}),
                                     sizes.hidden, 1.0f);
    calibrate();
  }
  void calibrate() {
    after = FloatMatrix(0, layer.sizes.hidden);
    statistics = calibrate_layer(
        *products, kF32, layer.weights, true, windows, before.values,
        [&](std::span<const float> values) {
          after.values.insert(after.values.end(), values.begin(), values.end());
          after.rows = after.values.size() / layer.sizes.hidden;
        },
        [](size_t) {});
  }
  // What calibration sees of the layer as it is now must be what the statistics have become.
  void check_statistics_followed(const FloatMatrix& former_output) {
    const LayerStatistics followed = std::move(statistics);
    calibrate();
    CHECK(qoq_test::relative_difference(after, former_output) < 2e-6);
    const auto same = [](const InputStatistics& a, const InputStatistics& b) {
      REQUIRE(a.largest.size() == b.largest.size());
      for (size_t i = 0; i < a.largest.size(); ++i)
        CHECK(a.largest[i] == doctest::Approx(b.largest[i]).epsilon(1e-4));
      CHECK(qoq_test::relative_difference(a.sample, b.sample) < 1e-5);
      double error = 0, power = 0;
      for (size_t i = 0; i < a.moments.rows; ++i) {
        for (size_t j = 0; j <= i; ++j) {
          const double x = static_cast<double>(a.moments.row(i)[j]);
          const double y = static_cast<double>(b.moments.row(i)[j]);
          error += (x - y) * (x - y);
          power += y * y;
        }
      }
      CHECK(power > 0);
      CHECK(std::sqrt(error / power) < 1e-5);
    };
    REQUIRE(followed.inputs.size() == 4);
    for (const Role role : {Role::q, Role::o, Role::gate, Role::down})
      same(layer.inputs(followed, role), layer.inputs(statistics, role));
    for (size_t i = 0; i < statistics.largest_key.size(); ++i)
      CHECK(followed.largest_key[i] == doctest::Approx(statistics.largest_key[i]).epsilon(1e-4));
  }
};

}  // namespace

TEST_CASE("a descending order keeps equal channels as they are") {
  const std::vector<float> largest = {1, 3, 2, 3, 0};
  CHECK(descending_order(largest) == std::vector<size_t>{1, 3, 2, 0, 4});
}

TEST_CASE("figures of o's inputs meet at the KV head that their query heads share") {
  Attention shape{};
  shape.query_heads = 4;
  shape.kv_heads = 2;
  shape.head_dim = 2;
  const std::vector<float> by_query = {1, 8, 5, 2, 3, 3, 4, 1};
  CHECK(maximum_over_queries(shape, by_query) == std::vector<float>{5, 8, 4, 3});
  CHECK(repeated_for_queries(shape, std::vector<float>{5, 8, 4, 3}) ==
        std::vector<float>{5, 8, 5, 8, 4, 3, 4, 3});
}

TEST_CASE("reordering keeps the layer's function and sorts what its parts read") {
  std::mt19937 generator = qoq_test::seeded();
  for (const Sizes& sizes : qoq_test::kSizes) {
    CAPTURE(sizes.hidden);
    Calibrated calibrated(generator, sizes);
    const FloatMatrix output = calibrated.after;
    qoq_test::Layer& layer = calibrated.layer;
    reorder_values(*calibrated.products, layer.weights, calibrated.statistics);
    reorder_ffn(*calibrated.products, layer.weights, calibrated.statistics);
    const InputStatistics& down = layer.inputs(calibrated.statistics, Role::down);
    CHECK(std::is_sorted(down.largest.rbegin(), down.largest.rend()));
    const InputStatistics& o = layer.inputs(calibrated.statistics, Role::o);
    const std::vector<float> values = maximum_over_queries(layer.attention().shape, o.largest);
    for (size_t head = 0; head < sizes.kv_heads; ++head) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(head * sizes.head_dim);
      CHECK(std::is_sorted(begin, begin + static_cast<std::ptrdiff_t>(sizes.head_dim), std::greater<>()));
    }
    calibrated.check_statistics_followed(output);
  }
}

TEST_CASE("key scales are the pair's largest key to the power of alpha") {
  const std::vector<float> largest = {1, 16, 4, 2, /* second head: one dead pair */ 0, 9, 0, 1};
  for (const double alpha : {0.0, 0.5, 1.0}) {
    const std::vector<float> scales = key_scales(largest, 4, alpha);
    CHECK(scales[0] == scales[2]);
    CHECK(scales[1] == scales[3]);
    CHECK(scales[4] == scales[6]);
    CHECK(scales[5] == scales[7]);
    CHECK(scales[1] / scales[0] == doctest::Approx(std::pow(4.0, alpha)));
    CHECK(scales[0] * scales[1] == doctest::Approx(1.0));
    CHECK(scales[4] == doctest::Approx(1.0));  // the dead pair counts like the only living one
  }
  const std::vector<float> dead = key_scales(std::vector<float>(4, 0.0f), 4, 0.5);
  CHECK(dead == std::vector<float>(4, 1.0f));
}

TEST_CASE("key scales keep the layer's function, biases and shared KV heads included") {
  std::mt19937 generator = qoq_test::seeded();
  for (const Sizes& sizes : qoq_test::kSizes) {
    CAPTURE(sizes.hidden);
    Calibrated calibrated(generator, sizes);
    const FloatMatrix output = calibrated.after;
    const auto scales = key_scales(calibrated.statistics.largest_key, sizes.head_dim, 0.7);
    CHECK(*std::max_element(scales.begin(), scales.end()) > 1.0f);
    apply_key_scales(scales, calibrated.layer.weights, calibrated.statistics);
    calibrated.check_statistics_followed(output);
  }
}

TEST_CASE("the exponent for the keys is the one that a 4-bit cache loses least with") {
  std::mt19937 generator = qoq_test::seeded();
  const Sizes& sizes = qoq_test::kSizes[0];
  Calibrated calibrated(generator, sizes);
  // One pair of every head is 40 times as large as the others, and the queries make up for it.
  std::vector<float> planted(sizes.kv_columns(), 1.0f);
  const size_t half = sizes.head_dim / 2;
  for (size_t head = 0; head < sizes.kv_heads; ++head)
    for (const size_t i : {size_t{3}, 3 + half}) planted[head * sizes.head_dim + i] = 1.0f / 40;
  apply_key_scales(planted, calibrated.layer.weights, calibrated.statistics);
  const AttentionScore score(*calibrated.products, kF32, calibrated.layer.weights,
                             calibrated.statistics.sample);
  const double alpha =
      best_key_alpha(*calibrated.products, sizes.head_dim, score, calibrated.statistics.largest_key);
  const auto loss = [&](double exponent) {
    const auto scales = key_scales(calibrated.statistics.largest_key, sizes.head_dim, exponent);
    FloatMatrix key = score.keys();
    for (size_t i = 0; i < key.values.size(); ++i) key.values[i] /= scales[i % key.columns];
    round_to_kv4(*calibrated.products, sizes.head_dim, key);
    for (size_t i = 0; i < key.values.size(); ++i) key.values[i] *= scales[i % key.columns];
    return score.error(score.attended(score.inputs_with_keys(key)));
  };
  CHECK(alpha >= 0.5);
  CHECK(loss(alpha) < 0.2 * loss(0));
  for (int step = 0; step <= 10; ++step) CHECK(loss(alpha) <= loss(step / 10.0) * (1 + 1e-6));
}

TEST_CASE("input divisors follow the formula and leave dead channels alone") {
  const std::vector<float> inputs = {4, 1, 0, 2};
  const std::vector<float> weights = {0.5f, 2, 1, 0};
  const std::vector<float> divisors = input_divisors(inputs, weights, 0.25);
  const double first = std::pow(4.0, 0.25) / std::pow(0.5, 0.75);
  const double second = 1.0 / std::pow(2.0, 0.75);
  CHECK(divisors[0] / divisors[1] == doctest::Approx(first / second));
  CHECK(divisors[0] * divisors[1] == doctest::Approx(1.0));
  CHECK(divisors[2] == 1.0f);
  CHECK(divisors[3] == 1.0f);
}

TEST_CASE("smoothing the inputs of o and down keeps the layer's function") {
  std::mt19937 generator = qoq_test::seeded();
  for (const Sizes& sizes : qoq_test::kSizes) {
    for (const std::optional<double> alpha : {std::optional<double>(), std::optional<double>(0.6)}) {
      CAPTURE(sizes.hidden);
      Calibrated calibrated(generator, sizes);
      const FloatMatrix output = calibrated.after;
      // Channels of very different sizes, so that there is something to do.
      std::vector<float> planted = qoq_test::random_vector(generator, sizes.kv_columns(), 0.0f, 1.0f);
      for (float& value : planted) value = std::exp2(value);
      apply_value_divisors(*calibrated.products, planted, calibrated.layer.weights, calibrated.statistics);
      planted = qoq_test::random_vector(generator, sizes.ffn, 0.0f, 1.0f);
      for (float& value : planted) value = std::exp2(value);
      apply_ffn_divisors(*calibrated.products, planted, calibrated.layer.weights, calibrated.statistics);

      const AttentionScore score(*calibrated.products, kF32, calibrated.layer.weights,
                                 calibrated.statistics.sample);
      const auto values = value_divisors(*calibrated.products, Scheme::w4a8_g128, calibrated.layer.weights,
                                         calibrated.statistics, score, alpha);
      const auto ffn = ffn_divisors(*calibrated.products, kF32, Scheme::w4a8_g128, calibrated.layer.weights,
                                    calibrated.statistics, alpha);
      CHECK(*std::max_element(ffn.begin(), ffn.end()) > 1.0f);
      apply_value_divisors(*calibrated.products, values, calibrated.layer.weights, calibrated.statistics);
      apply_ffn_divisors(*calibrated.products, ffn, calibrated.layer.weights, calibrated.statistics);
      calibrated.check_statistics_followed(output);
    }
  }
}

TEST_CASE("the cache's and the activations' roundings are those of the file format") {
  const auto products = make_cpu_dense_products(1);
  FloatMatrix x(1, 8);
  x.values = {0, 15, 7.4f, 7.6f, -2, -2, -2, -2};
  FloatMatrix kv = x;
  round_to_kv4(*products, 4, kv);
  CHECK(kv.values == std::vector<float>{0, 15, 7, 8, -2, -2, -2, -2});
  FloatMatrix codes(2, 3);
  codes.values = {127, -3.4f, 0.6f, 0, 0, 0};
  round_to_int8(*products, codes);
  CHECK(codes.values == std::vector<float>{127, -3, 1, 0, 0, 0});
}
