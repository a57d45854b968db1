// The calibrator's layer against plain loops in float64, and what calibration keeps of it.
#include "engine/quantize/calibration/float_layer.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/calibration/calibrate_layer.h"
#include "qoq_layers.h"

using namespace tessera;
using namespace tessera::quantize;

namespace {

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

void turn(const DecoderShape& shape, size_t position, Row& x) {
  const size_t half = shape.head_dim / 2;
  for (size_t head = 0; head < x.size(); head += shape.head_dim) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * shape.inverse_frequency[i];
      const double a = x[head + i], b = x[head + i + half];
      x[head + i] = a * std::cos(angle) - b * std::sin(angle);
      x[head + i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

// One window through the layer, token by token.
std::vector<Row> plain_layer(const DecoderShape& shape, const LayerWeights& weights,
                             std::vector<Row> stream) {
  std::vector<Row> keys, values;
  const double epsilon = static_cast<double>(shape.norm_epsilon);
  for (size_t t = 0; t < stream.size(); ++t) {
    Row& x = stream[t];
    const Row read = norm(x, weights.attention_norm, epsilon);
    Row query = times(weights.q, weights.q_bias, read);
    keys.push_back(times(weights.k, weights.k_bias, read));
    values.push_back(times(weights.v, weights.v_bias, read));
    turn(shape, t, query);
    turn(shape, t, keys.back());
    Row mixed(shape.query_columns(), 0.0);
    for (size_t head = 0; head < shape.query_heads; ++head) {
      const size_t kv = head / shape.queries_per_kv_head() * shape.head_dim;
      Row weight(t + 1);
      double total = 0;
      for (size_t s = 0; s <= t; ++s) {
        double dot = 0;
        for (size_t i = 0; i < shape.head_dim; ++i) dot += query[head * shape.head_dim + i] * keys[s][kv + i];
        weight[s] = std::exp(dot / std::sqrt(static_cast<double>(shape.head_dim)));
        total += weight[s];
      }
      for (size_t s = 0; s <= t; ++s)
        for (size_t i = 0; i < shape.head_dim; ++i)
          mixed[head * shape.head_dim + i] += weight[s] / total * values[s][kv + i];
    }
    const Row out = times(weights.o, weights.o_bias, mixed);
    for (size_t i = 0; i < x.size(); ++i) x[i] += out[i];
    const Row ffn = norm(x, weights.ffn_norm, epsilon);
    Row gate = times(weights.gate, {}, ffn);
    const Row up = times(weights.up, {}, ffn);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    const Row down = times(weights.down, {}, gate);
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
    const DecoderShape shape = qoq_test::shape_of(sizes);
    const LayerWeights weights = qoq_test::random_layer(generator, shape, sizes.biases);
    const std::vector<size_t> windows = {270, 1, 16};  // longer than a block of queries, and the shortest
    FloatMatrix stream = qoq_test::random_matrix(generator, 287, shape.hidden, 1.0f);
    FloatMatrix expected(stream.rows, stream.columns);
    size_t first = 0;
    for (const size_t window : windows) {
      std::vector<Row> rows;
      for (size_t t = 0; t < window; ++t)
        rows.emplace_back(stream.row(first + t).begin(), stream.row(first + t).end());
      rows = plain_layer(shape, weights, std::move(rows));
      for (size_t t = 0; t < window; ++t)
        for (size_t i = 0; i < shape.hidden; ++i) expected.row(first + t)[i] = static_cast<float>(rows[t][i]);
      first += window;
    }
    run_layer(*products, DenseProduct::Precision::f32, shape, weights, windows, stream);
    CHECK(qoq_test::relative_difference(stream, expected) < 2e-6);
  }
}

TEST_CASE("calibration passes the whole text through in order and keeps its largest values") {
  std::mt19937 generator = qoq_test::seeded();
  const DecoderShape shape = qoq_test::shape_of(qoq_test::kSizes[0]);
  const LayerWeights weights = qoq_test::random_layer(generator, shape, true);
  const std::vector<size_t> windows = {600, 300, 300, 1100, 3};  // blocks of one, two and an overlong one
  const size_t tokens = std::accumulate(windows.begin(), windows.end(), size_t{0});
  const FloatMatrix before = qoq_test::random_matrix(generator, tokens, shape.hidden, 1.0f);
  std::vector<std::vector<float>> streams;
  std::vector<LayerStatistics> all;
  for (const size_t threads : {1u, 2u, 3u}) {
    const auto products = make_cpu_dense_products(threads);
    std::vector<float>& after = streams.emplace_back();
    size_t done = 0;
    all.push_back(calibrate_layer(
        *products, DenseProduct::Precision::f32, shape, weights, true, windows, before.values,
        [&](std::span<const float> values) { after.insert(after.end(), values.begin(), values.end()); },
        [&](size_t count) { done += count; }));
    CHECK(done == tokens);
    CHECK(after == streams.front());  // any number of threads, the same bits
    CHECK(all.back().down.moments.values == all.front().down.moments.values);
    CHECK(all.back().largest_key == all.front().largest_key);
    CHECK(all.back().sample.input.values == all.front().sample.input.values);
  }
  const auto products = make_cpu_dense_products(2);
  FloatMatrix whole = before;
  const LayerInputs inputs =
      run_layer(*products, DenseProduct::Precision::f32, shape, weights, windows, whole);
  FloatMatrix passed(tokens, shape.hidden);
  passed.values = streams.front();
  CHECK(qoq_test::relative_difference(passed, whole) < 1e-6);
  std::vector<float> largest(shape.kv_columns(), 0.0f);
  for (size_t row = 0; row < tokens; ++row)
    for (size_t i = 0; i < largest.size(); ++i)
      largest[i] = std::max(largest[i], std::abs(inputs.key.row(row)[i]));
  for (size_t i = 0; i < largest.size(); ++i)
    CHECK(all.front().largest_key[i] == doctest::Approx(largest[i]).epsilon(1e-5));

  // The sample is the beginnings of windows, and holds their inputs.
  const AttentionSample& sample = all.front().sample;
  CHECK(std::accumulate(sample.windows.begin(), sample.windows.end(), size_t{0}) == sample.input.rows);
  CHECK(sample.input.rows >= 800);
  for (size_t i = 0; i < shape.hidden; ++i)
    CHECK(sample.input.row(0)[i] == doctest::Approx(inputs.attention.row(0)[i]).epsilon(1e-5));
}
