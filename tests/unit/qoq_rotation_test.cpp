// Rotations of many sizes against their definition, and a rotated layer against the plain one.
#include "graph/rotation.h"

#include <doctest/doctest.h>

#include <cmath>
#include <iostream>
#include <random>
#include <stdexcept>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/qoq/rotate_layer.h"
#include "qoq_layers.h"

using namespace tessera;

namespace {

// The whole matrix: row i is what the i-th unit vector becomes.
std::vector<std::vector<double>> matrix_of(const Rotation& rotation) {
  std::vector<std::vector<double>> rows(rotation.size(), std::vector<double>(rotation.size(), 0.0));
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i][i] = 1;
    rotation.apply(rows[i]);
  }
  return rows;
}

double distance_from_orthogonal(const std::vector<std::vector<double>>& rows) {
  double worst = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double dot = 0;
      for (size_t c = 0; c < rows.size(); ++c) dot += rows[i][c] * rows[j][c];
      worst = std::max(worst, std::abs(dot - (i == j ? 1.0 : 0.0)));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("every size has an orthogonal rotation, a Hadamard matrix wherever Paley gives one") {
  struct Expected {
    size_t size;
    size_t order;  // of the factor for the odd part
    bool hadamard;
  };
  const std::vector<Expected> cases = {
      {1, 1, true},    {2, 1, true},     {8, 1, true},     {64, 1, true},    {256, 1, true},
      {12, 12, true},  {20, 20, true},   {24, 12, true},   {28, 28, true},   {36, 36, true},
      {40, 20, true},  {44, 44, true},   {52, 13, false},  {60, 60, true},   {72, 36, true},
      {76, 76, true},  {96, 12, true},   {104, 104, true}, {172, 43, false}, {152, 76, true},
      {288, 36, true}, {344, 43, false}, {576, 36, true},  {896, 28, true},  {3, 3, false},
      {5, 5, false},   {7, 7, false},    {18, 9, false},   {100, 25, false}, {135, 135, false},
      {640, 20, true}, {1536, 12, true},
  };
  for (const Expected& expected : cases) {
    CAPTURE(expected.size);
    const Rotation rotation(expected.size);
    CHECK(rotation.size() == expected.size);
    CHECK(rotation.factor_order() == expected.order);
    CHECK(rotation.factor_is_hadamard() == expected.hadamard);
    const auto rows = matrix_of(rotation);
    CHECK(distance_from_orthogonal(rows) < 1e-12);
    if (!expected.hadamard) continue;
    const double entry = 1.0 / std::sqrt(static_cast<double>(expected.size));
    double worst = 0;
    for (const auto& row : rows)
      for (const double value : row) worst = std::max(worst, std::abs(std::abs(value) - entry));
    CHECK(worst < 1e-12);
  }
}

TEST_CASE("undo takes back apply, and a mean that all elements share does not gather in one") {
  std::mt19937 generator = qoq_test::seeded();
  std::normal_distribution<double> normal;
  for (const size_t size : {64u, 172u, 576u, 1000u, 4096u}) {
    CAPTURE(size);
    const Rotation rotation(size);
    std::vector<double> x(size);
    for (double& value : x) value = normal(generator);
    std::vector<double> y = x;
    rotation.apply(y);
    rotation.undo(y);
    double worst = 0;
    for (size_t i = 0; i < size; ++i) worst = std::max(worst, std::abs(x[i] - y[i]));
    CHECK(worst < 1e-12);

    std::vector<double> ones(size, 1.0);
    rotation.apply(ones);
    double largest = 0;
    for (const double value : ones) largest = std::max(largest, std::abs(value));
    // All of it in one element would be sqrt(size); spread like noise, the largest of size normals is
    // about 4.
    CHECK(largest < std::max(6.0, 0.75 * std::sqrt(static_cast<double>(size))));
  }
}

TEST_CASE("an odd part beyond the limit is refused with its size") {
  CHECK_THROWS_WITH_AS(Rotation(2 * 8193),
                       "rotation of size 16386: expected an odd part of at most 8191, found 8193",
                       std::runtime_error);
}

TEST_CASE("a rotated layer computes the rotated stream of the plain layer") {
  std::mt19937 generator = qoq_test::seeded();
  const auto products = make_cpu_dense_products(2);
  for (const qoq_test::Sizes& sizes : qoq_test::kSizes) {
    CAPTURE(sizes.hidden);
    qoq_test::Layer layer = qoq_test::random_layer(generator, sizes);
    const std::vector<size_t> windows = {7, 1, 19};
    quantize::FloatMatrix plain = qoq_test::random_matrix(generator, 27, sizes.hidden, 1.0f);
    quantize::FloatMatrix rotated = plain;
    quantize::run_layer(*products, DenseProduct::Precision::f32, layer.weights, windows, plain);

    CHECK(quantize::rotation_obstacle(layer.layers()).empty());
    const quantize::ModelRotation rotation(sizes.hidden, layer.layers());
    rotation.rotate_layer(*products, layer.weights);
    for (const float gain : layer.vector(Role::attention_norm)) CHECK(gain == 1.0f);
    for (const float gain : layer.vector(Role::ffn_norm)) CHECK(gain == 1.0f);
    std::vector<double> scratch;
    for (size_t row = 0; row < rotated.rows; ++row) rotation.rotate_residual(rotated.row(row), scratch);
    quantize::run_layer(*products, DenseProduct::Precision::f32, layer.weights, windows, rotated);
    for (size_t row = 0; row < plain.rows; ++row) rotation.rotate_residual(plain.row(row), scratch);
    CHECK(qoq_test::relative_difference(rotated, plain) < 2e-6);
  }
}

TEST_CASE("a rotated head row gives the logits of the plain one behind its norm") {
  std::mt19937 generator = qoq_test::seeded();
  const qoq_test::Layer layer(qoq_test::kSizes[0]);
  const quantize::ModelRotation rotation(layer.sizes.hidden, layer.layers());
  const quantize::FloatMatrix x = qoq_test::random_matrix(generator, 3, layer.sizes.hidden, 1.0f);
  double plain = 0, rotated = 0, power = 0;
  std::vector<float> stream(x.row(0).begin(), x.row(0).end());
  std::vector<float> head(x.row(1).begin(), x.row(1).end());
  const std::span<const float> gain = x.row(2);
  for (size_t i = 0; i < stream.size(); ++i) {
    const double term =
        static_cast<double>(stream[i]) * static_cast<double>(gain[i]) * static_cast<double>(head[i]);
    plain += term;
    power += term * term;
  }
  std::vector<double> scratch;
  rotation.rotate_residual(stream, scratch);
  rotation.rotate_head(gain, head, scratch);
  for (size_t i = 0; i < stream.size(); ++i)
    rotated += static_cast<double>(stream[i]) * static_cast<double>(head[i]);
  CHECK(std::abs(rotated - plain) < 1e-5 * std::sqrt(power));
}
