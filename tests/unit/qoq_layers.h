// Random decoder layers of awkward sizes for the tests of the recipe's steps.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <random>
#include <vector>

#include "engine/models/rope_frequencies.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_weights.h"

namespace tessera::qoq_test {

inline std::mt19937 seeded() {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  return std::mt19937(seed);
}

struct Sizes {
  size_t hidden, query_heads, kv_heads, head_dim, ffn;
  bool biases;
};

inline constexpr std::array<Sizes, 3> kSizes = {
    {{72, 6, 2, 24, 172, true}, {64, 4, 4, 16, 96, false}, {86, 5, 1, 8, 45, true}}};

inline quantize::DecoderShape shape_of(const Sizes& sizes) {
  quantize::DecoderShape shape;
  shape.hidden = sizes.hidden;
  shape.query_heads = sizes.query_heads;
  shape.kv_heads = sizes.kv_heads;
  shape.head_dim = sizes.head_dim;
  shape.ffn = sizes.ffn;
  shape.norm_epsilon = 1e-5f;
  shape.inverse_frequency = rope_inverse_frequencies(sizes.head_dim, 10000.0, {});
  return shape;
}

inline quantize::FloatMatrix random_matrix(std::mt19937& generator, size_t rows, size_t columns,
                                           float deviation) {
  std::normal_distribution<float> normal(0.0f, deviation);
  quantize::FloatMatrix matrix(rows, columns);
  for (float& value : matrix.values) value = normal(generator);
  return matrix;
}

inline std::vector<float> random_vector(std::mt19937& generator, size_t count, float mean, float deviation) {
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

inline quantize::LayerWeights random_layer(std::mt19937& generator, const quantize::DecoderShape& shape,
                                           bool biases) {
  quantize::LayerWeights weights;
  const float wide = 1.0f / std::sqrt(static_cast<float>(shape.hidden));
  weights.attention_norm = random_vector(generator, shape.hidden, 1.0f, 0.3f);
  weights.ffn_norm = random_vector(generator, shape.hidden, 1.0f, 0.3f);
  weights.q = random_matrix(generator, shape.query_columns(), shape.hidden, 2 * wide);
  weights.k = random_matrix(generator, shape.kv_columns(), shape.hidden, 2 * wide);
  weights.v = random_matrix(generator, shape.kv_columns(), shape.hidden, wide);
  weights.o = random_matrix(generator, shape.hidden, shape.query_columns(), wide);
  weights.gate = random_matrix(generator, shape.ffn, shape.hidden, wide);
  weights.up = random_matrix(generator, shape.ffn, shape.hidden, wide);
  weights.down = random_matrix(generator, shape.hidden, shape.ffn, wide);
  if (biases) {
    weights.q_bias = random_vector(generator, shape.query_columns(), 0.0f, 0.5f);
    weights.k_bias = random_vector(generator, shape.kv_columns(), 0.0f, 0.5f);
    weights.v_bias = random_vector(generator, shape.kv_columns(), 0.0f, 0.5f);
    weights.o_bias = random_vector(generator, shape.hidden, 0.0f, 0.5f);
  }
  return weights;
}

// sqrt(sum (a - b)^2 / sum b^2)
inline double relative_difference(const quantize::FloatMatrix& a, const quantize::FloatMatrix& b) {
  if (a.rows != b.rows || a.columns != b.columns) return INFINITY;
  double error = 0, power = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    const double difference = static_cast<double>(a.values[i]) - static_cast<double>(b.values[i]);
    error += difference * difference;
    power += static_cast<double>(b.values[i]) * static_cast<double>(b.values[i]);
  }
  return std::sqrt(error / power);
}

}  // namespace tessera::qoq_test
