// Activation-aware scaling: its formula, that it leaves a layer's function as it was, that the statistics
// follow, and that it finds planted channels.
#include "engine/quantize/lut/channel_scaling.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/calibrate_layer.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/lut/table_matrix.h"
#include "engine/quantize/recipe/recipe.h"
#include "qoq_layers.h"

using namespace tessera;
using namespace tessera::quantize;
using qoq_test::Sizes;

namespace {

constexpr auto kF32 = DenseProduct::Precision::f32;

Recipe scaling_recipe(bool scale_search) {
  Recipe recipe = Recipe::rounding();
  recipe.awq = true;
  recipe.feedback = true;  // so that statistics have moments, which must follow too
  recipe.scale_search = scale_search;
  return recipe;
}

struct Calibrated {
  std::vector<size_t> windows = {33, 5, 61, 1};
  std::unique_ptr<DenseProducts> products = make_cpu_dense_products(2);
  DecoderShape shape;
  Recipe recipe;
  LayerWeights weights;
  FloatMatrix before, after;
  LayerStatistics statistics;
  std::vector<std::string> notes;

  Calibrated(std::mt19937& generator, const Sizes& sizes, bool scale_search)
      : shape(qoq_test::shape_of(sizes)),
        recipe(scaling_recipe(scale_search)),
        weights(qoq_test::random_layer(generator, shape, sizes.biases)) {
    before = qoq_test::random_matrix(generator, std::accumulate(windows.begin(), windows.end(), size_t{0}),
                                     shape.hidden, 1.0f);
  }
  void calibrate() {
    after = FloatMatrix(0, shape.hidden);
    statistics = calibrate_layer(
        *products, kF32, shape, weights, recipe.needs_moments(), windows, before.values,
        [&](std::span<const float> values) {
          after.values.insert(after.values.end(), values.begin(), values.end());
          after.rows = after.values.size() / shape.hidden;
        },
        [](size_t) {});
  }
  void scale(const std::string& scheme) {
    const LayerContext context{*products, kF32, shape,
                               [&](const std::string& line) { notes.push_back(line); }};
    scale_channels(context, table_format(parse_scheme(scheme).value()).value(), recipe.scale_search, weights,
                   statistics);
  }
  // Squared error that rounding brings to a matrix's output on the sampled inputs.
  double output_error(const std::string& scheme, const FloatMatrix& matrix, const InputStatistics& inputs) {
    const FloatMatrix rounded =
        rounded_to_table(*products, table_format(parse_scheme(scheme).value()).value(), matrix,
                         recipe.scale_search, quantize::importance_of(&inputs));
    return squared_difference(*products, project(*products, kF32, inputs.sample, rounded, {}),
                              project(*products, kF32, inputs.sample, matrix, {}));
  }
};

void check_same(const InputStatistics& followed, const InputStatistics& measured) {
  REQUIRE(followed.largest.size() == measured.largest.size());
  size_t wrong = 0;
  const auto differ = [](float a, float b) { return std::abs(a - b) > 1e-4f * std::abs(b); };
  for (size_t i = 0; i < followed.largest.size(); ++i) {
    wrong += differ(followed.largest[i], measured.largest[i]);
    wrong += differ(followed.squares[i], measured.squares[i]);
  }
  CHECK(wrong == 0);
  CHECK(qoq_test::relative_difference(followed.sample, measured.sample) < 1e-4);
  double error = 0, power = 0;
  for (size_t i = 0; i < followed.moments.rows; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      const double x = static_cast<double>(followed.moments.row(i)[j]);
      const double y = static_cast<double>(measured.moments.row(i)[j]);
      error += (x - y) * (x - y);
      power += y * y;
    }
  }
  CHECK(power > 0);
  CHECK(std::sqrt(error / power) < 1e-4);
}

}  // namespace

TEST_CASE("channel divisors are root mean squares to the power of alpha; dead channels are left alone") {
  const std::vector<float> squares{16, 1, 0, 4};
  for (const double alpha : {0.0, 0.3, 1.0}) {
    const std::vector<float> divisors = quantize::channel_divisors(squares, alpha);
    CHECK(divisors[0] / divisors[1] == doctest::Approx(std::pow(4.0, alpha)));
    CHECK(divisors[3] / divisors[1] == doctest::Approx(std::pow(2.0, alpha)));
    CHECK(divisors[0] * divisors[1] * divisors[3] == doctest::Approx(1.0));
    CHECK(divisors[2] == 1.0f);
  }
}

TEST_CASE("scaling channels keeps the layer's function and the statistics follow") {
  std::mt19937 generator = qoq_test::seeded();
  for (const Sizes& sizes : qoq_test::kSizes) {
    for (const std::string scheme : {"lut4-g32", "lut3-g64-a8", "int4-g128"}) {
      CAPTURE(sizes.hidden);
      CAPTURE(scheme);
      Calibrated layer(generator, sizes, true);
      // Channels of very different sizes, so that there is something to do.
      for (std::vector<float>* gain : {&layer.weights.attention_norm, &layer.weights.ffn_norm})
        for (float& value : *gain) value *= std::exp2(1.5f * qoq_test::random_vector(generator, 1, 0, 1)[0]);
      for (FloatMatrix* matrix : {&layer.weights.v, &layer.weights.up})
        for (size_t row = 0; row < matrix->rows; ++row) {
          const float factor = std::exp2(1.5f * qoq_test::random_vector(generator, 1, 0, 1)[0]);
          for (float& value : matrix->row(row)) value *= factor / 4;
        }
      layer.calibrate();
      const FloatMatrix output = layer.after;
      layer.scale(scheme);
      CHECK(layer.notes.size() == 4);
      const LayerStatistics followed = std::move(layer.statistics);
      layer.calibrate();
      CHECK(qoq_test::relative_difference(layer.after, output) < 1e-4);
      check_same(followed.attention, layer.statistics.attention);
      check_same(followed.o, layer.statistics.o);
      check_same(followed.ffn, layer.statistics.ffn);
      check_same(followed.down, layer.statistics.down);
      CHECK(qoq_test::relative_difference(followed.sample.input, layer.statistics.sample.input) < 1e-4);
    }
  }
}

TEST_CASE("planted channels get finer steps") {
  std::mt19937 generator = qoq_test::seeded();
  for (const std::string scheme : {"lut4-g32", "lut3-g32-a8", "int4-g64"}) {
    CAPTURE(scheme);
    Calibrated layer(generator, qoq_test::kSizes[0], false);
    layer.weights.attention_norm[3] = 60.0f;
    layer.weights.ffn_norm[50] = -60.0f;
    layer.calibrate();
    const double v = layer.output_error(scheme, layer.weights.v, layer.statistics.attention);
    const double up = layer.output_error(scheme, layer.weights.up, layer.statistics.ffn);
    layer.scale(scheme);
    CHECK(layer.output_error(scheme, layer.weights.v, layer.statistics.attention) < 0.7 * v);
    CHECK(layer.output_error(scheme, layer.weights.up, layer.statistics.ffn) < 0.7 * up);
  }
}
