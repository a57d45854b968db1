// The calibrator's layer against plain loops in float64, and what calibration keeps of it.
#include "engine/quantize/calibration/run_ops.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/calibration/calibrate_layer.h"
#include "qoq_layers.h"

using namespace tessera;
using namespace tessera::quantize;
using qoq_test::Sizes;

namespace {

constexpr auto kF32 = DenseProduct::Precision::f32;

using Row = std::vector<double>;

Row times(const FloatMatrix& weights, const std::vector<float>& bias, const Row& x) {
  Row y(weights.rows, 0.0);
  for (size_t n = 0; n < weights.rows; ++n) {
    for (size_t k = 0; k < weights.columns; ++k) y[n] += static_cast<double>(weights.row(n)[k]) * x[k];
    if (!bias.empty()) y[n] += static_cast<double>(bias[n]);
  }
  return y;
}

Row norm(const Row& x, const std::vector<float>& gain, double epsilon) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  Row y(x.size());
  for (size_t i = 0; i < x.size(); ++i)
    y[i] = x[i] / std::sqrt(sum / static_cast<double>(x.size()) + epsilon) * static_cast<double>(gain[i]);
  return y;
}

void rotate_positions(const Sizes& sizes, size_t position, Row& x) {
  const size_t half = sizes.head_dim / 2;
  for (size_t head = 0; head < x.size(); head += sizes.head_dim) {
    for (size_t i = 0; i < half; ++i) {
      const double frequency =
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(sizes.head_dim));
      const double angle = static_cast<double>(position) * frequency;
      const double a = x[head + i], b = x[head + i + half];
      x[head + i] = a * std::cos(angle) - b * std::sin(angle);
      x[head + i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

// One window through the layer, token by token.
std::vector<Row> plain_layer(const qoq_test::Layer& layer, std::vector<Row> stream) {
  const Sizes& sizes = layer.sizes;
  std::vector<Row> keys, values;
  const double epsilon = 1e-5;
  for (size_t t = 0; t < stream.size(); ++t) {
    Row& x = stream[t];
    const Row read = norm(x, layer.vector(Role::attention_norm), epsilon);
    Row query = times(layer[Role::q], layer.vector(Role::q_bias), read);
    keys.push_back(times(layer[Role::k], layer.vector(Role::k_bias), read));
    values.push_back(times(layer[Role::v], layer.vector(Role::v_bias), read));
    rotate_positions(sizes, t, query);
    rotate_positions(sizes, t, keys.back());
    Row mixed(sizes.query_columns(), 0.0);
    for (size_t head = 0; head < sizes.query_heads; ++head) {
      const size_t kv = head / (sizes.query_heads / sizes.kv_heads) * sizes.head_dim;
      Row weight(t + 1);
      double total = 0;
      for (size_t s = 0; s <= t; ++s) {
        double dot = 0;
        for (size_t i = 0; i < sizes.head_dim; ++i) dot += query[head * sizes.head_dim + i] * keys[s][kv + i];
        weight[s] = std::exp(dot / std::sqrt(static_cast<double>(sizes.head_dim)));
        total += weight[s];
      }
      for (size_t s = 0; s <= t; ++s)
        for (size_t i = 0; i < sizes.head_dim; ++i)
          mixed[head * sizes.head_dim + i] += weight[s] / total * values[s][kv + i];
    }
    const Row out = times(layer[Role::o], layer.vector(Role::o_bias), mixed);
    for (size_t i = 0; i < x.size(); ++i) x[i] += out[i];
    const Row ffn = norm(x, layer.vector(Role::ffn_norm), epsilon);
    Row gate = times(layer[Role::gate], {}, ffn);
    const Row up = times(layer[Role::up], {}, ffn);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    const Row down = times(layer[Role::down], {}, gate);
    for (size_t i = 0; i < x.size(); ++i) x[i] += down[i];
  }
  return stream;
}

}  // namespace

TEST_CASE("a layer over several windows is what plain loops compute, window by window") {
  std::mt19937 generator = qoq_test::seeded();
  const auto products = make_cpu_dense_products(2);
  for (const qoq_test::Sizes& sizes : qoq_test::kSizes) {
    CAPTURE(sizes.hidden);
    const qoq_test::Layer layer = qoq_test::random_layer(generator, sizes);
    const std::vector<size_t> windows = {270, 1, 16};  // longer than a block of queries, and the shortest
    FloatMatrix stream = qoq_test::random_matrix(generator, 287, sizes.hidden, 1.0f);
    FloatMatrix expected(stream.rows, stream.columns);
    size_t first = 0;
    for (const size_t window : windows) {
      std::vector<Row> rows;
      for (size_t t = 0; t < window; ++t)
        rows.emplace_back(stream.row(first + t).begin(), stream.row(first + t).end());
      rows = plain_layer(layer, std::move(rows));
      for (size_t t = 0; t < window; ++t)
        for (size_t i = 0; i < sizes.hidden; ++i) expected.row(first + t)[i] = static_cast<float>(rows[t][i]);
      first += window;
    }
    run_layer(*products, kF32, layer.weights, windows, stream);
    CHECK(qoq_test::relative_difference(stream, expected) < 2e-6);
  }
}

TEST_CASE("calibration passes the whole text through in order and keeps its largest values") {
  std::mt19937 generator = qoq_test::seeded();
  const Sizes& sizes = qoq_test::kSizes[0];
  const qoq_test::Layer layer = qoq_test::random_layer(generator, sizes);
  const std::vector<size_t> windows = {600, 300, 300, 1100, 3};  // blocks of one, two and an overlong one
  const size_t tokens = std::accumulate(windows.begin(), windows.end(), size_t{0});
  const FloatMatrix before = qoq_test::random_matrix(generator, tokens, sizes.hidden, 1.0f);
  std::vector<std::vector<float>> streams;
  std::vector<LayerStatistics> all;
  for (const size_t threads : {1u, 2u, 3u}) {
    const auto products = make_cpu_dense_products(threads);
    std::vector<float>& after = streams.emplace_back();
    size_t done = 0;
    all.push_back(calibrate_layer(
        *products, kF32, layer.weights, true, windows, before.values,
        [&](std::span<const float> values) { after.insert(after.end(), values.begin(), values.end()); },
        [&](size_t count) { done += count; }));
    CHECK(done == tokens);
    CHECK(after == streams.front());  // any number of threads, the same bits
    CHECK(layer.inputs(all.back(), Role::down).moments.values ==
          layer.inputs(all.front(), Role::down).moments.values);
    CHECK(all.back().largest_key == all.front().largest_key);
    CHECK(all.back().sample.input.values == all.front().sample.input.values);
  }
  const auto products = make_cpu_dense_products(2);
  FloatMatrix whole = before;
  FloatMatrix attention_inputs, keys;
  OpObserver observer;
  observer.linear = [&](size_t op, const FloatMatrix& x) {
    if (op == layer.attention().input) attention_inputs = x;
  };
  observer.attention = [&](size_t, const FloatMatrix& x) {
    keys = columns_of(x, {sizes.query_columns(), sizes.kv_columns()});
  };
  run_layer(*products, kF32, layer.weights, windows, whole, observer);
  FloatMatrix passed(tokens, sizes.hidden);
  passed.values = streams.front();
  CHECK(qoq_test::relative_difference(passed, whole) < 1e-6);
  std::vector<float> largest(sizes.kv_columns(), 0.0f);
  for (size_t row = 0; row < tokens; ++row)
    for (size_t i = 0; i < largest.size(); ++i) largest[i] = std::max(largest[i], std::abs(keys.row(row)[i]));
  for (size_t i = 0; i < largest.size(); ++i)
    CHECK(all.front().largest_key[i] == doctest::Approx(largest[i]).epsilon(1e-5));

  // The sample is the beginnings of windows, and holds their inputs.
  const AttentionSample& sample = all.front().sample;
  CHECK(std::accumulate(sample.windows.begin(), sample.windows.end(), size_t{0}) == sample.input.rows);
  CHECK(sample.input.rows >= 800);
  for (size_t i = 0; i < sizes.hidden; ++i)
    CHECK(sample.input.row(0)[i] == doctest::Approx(attention_inputs.row(0)[i]).epsilon(1e-5));
}
