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
  Recipe recipe;
  qoq_test::Layer layer;
  FloatMatrix before, after;
  LayerStatistics statistics;
  std::vector<std::string> notes;

  Calibrated(std::mt19937& generator, const Sizes& sizes, bool scale_search)
      : recipe(scaling_recipe(scale_search)), layer(qoq_test::random_layer(generator, sizes)) {
    before = qoq_test::random_matrix(generator, std::accumulate(windows.begin(), windows.end(), size_t{0}),
                                     layer.sizes.hidden, 1.0f);
  }
  const InputStatistics& inputs(Role role) const { return layer.inputs(statistics, role); }
  void calibrate() {
    after = FloatMatrix(0, layer.sizes.hidden);
    statistics = calibrate_layer(
        *products, kF32, layer.weights, recipe.needs_moments(), windows, before.values,
        [&](std::span<const float> values) {
          after.values.insert(after.values.end(), values.begin(), values.end());
          after.rows = after.values.size() / layer.sizes.hidden;
        },
        [](size_t) {});
  }
  void scale(const std::string& scheme) {
    const LayerContext context{*products, kF32, [&](const std::string& line) { notes.push_back(line); }};
    scale_channels(context, table_format(parse_scheme(scheme).value()).value(), recipe.scale_search,
                   layer.weights, statistics);
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
      Calibrated calibrated(generator, sizes, true);
      // Channels of very different sizes, so that there is something to do.
      for (const Role role : {Role::attention_norm, Role::ffn_norm})
        for (float& value : calibrated.layer[role].values)
          value *= std::exp2(1.5f * qoq_test::random_vector(generator, 1, 0, 1)[0]);
      for (const Role role : {Role::v, Role::up})
        for (size_t row = 0; row < calibrated.layer[role].rows; ++row) {
          const float factor = std::exp2(1.5f * qoq_test::random_vector(generator, 1, 0, 1)[0]);
          for (float& value : calibrated.layer[role].row(row)) value *= factor / 4;
        }
      calibrated.calibrate();
      const FloatMatrix output = calibrated.after;
      calibrated.scale(scheme);
      CHECK(calibrated.notes.size() == 4);
      const LayerStatistics followed = std::move(calibrated.statistics);
      calibrated.calibrate();
      CHECK(qoq_test::relative_difference(calibrated.after, output) < 1e-4);
      REQUIRE(followed.inputs.size() == 4);
      for (const Role role : {Role::q, Role::o, Role::gate, Role::down})
        check_same(calibrated.layer.inputs(followed, role), calibrated.inputs(role));
      CHECK(qoq_test::relative_difference(followed.sample.input, calibrated.statistics.sample.input) < 1e-4);
    }
  }
}

TEST_CASE("planted channels get finer steps") {
  std::mt19937 generator = qoq_test::seeded();
  for (const std::string scheme : {"lut4-g32", "lut3-g32-a8", "int4-g64"}) {
    CAPTURE(scheme);
    Calibrated calibrated(generator, qoq_test::kSizes[0], false);
    calibrated.layer[Role::attention_norm].values[3] = 60.0f;
    calibrated.layer[Role::ffn_norm].values[50] = -60.0f;
    calibrated.calibrate();
    const double v = calibrated.output_error(scheme, calibrated.layer[Role::v], calibrated.inputs(Role::q));
    const double up =
        calibrated.output_error(scheme, calibrated.layer[Role::up], calibrated.inputs(Role::gate));
    calibrated.scale(scheme);
    CHECK(calibrated.output_error(scheme, calibrated.layer[Role::v], calibrated.inputs(Role::q)) < 0.7 * v);
    CHECK(calibrated.output_error(scheme, calibrated.layer[Role::up], calibrated.inputs(Role::gate)) <
          0.7 * up);
  }
}
