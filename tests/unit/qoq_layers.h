// Random decoder layers of awkward sizes for the tests of the recipe's steps.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "engine/models/model_graph.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/float_ops.h"
#include "engine/quantize/calibration/layer_graph.h"
#include "engine/quantize/calibration/run_ops.h"
#include "gguf-like-format/tensor_roles.h"

namespace tessera::qoq_test {

inline std::mt19937 seeded() {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  return std::mt19937(seed);
}

struct Sizes {
  size_t hidden, query_heads, kv_heads, head_dim, ffn;
  bool biases;

  size_t query_columns() const { return query_heads * head_dim; }
  size_t kv_columns() const { return kv_heads * head_dim; }
};

inline constexpr std::array<Sizes, 3> kSizes = {
    {{72, 6, 2, 24, 172, true}, {64, 4, 4, 16, 96, false}, {86, 5, 1, 8, 45, true}}};

// The graph of a decoder and its layers.
struct Decoder {
  Graph graph;
  std::vector<quantize::LayerGraph> layers;

  explicit Decoder(const Hyperparameters& hyperparameters)
      : graph(build_graph(hyperparameters, [](const ExpectedTensor&) { return Scheme::f32; })) {
    std::vector<Role> roles;
    for (const ExpectedTensor& tensor : expected_tensors(hyperparameters)) roles.push_back(tensor.role);
    layers = quantize::find_layers(graph, roles);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

inline Hyperparameters hyperparameters_of(const Sizes& sizes) {
  Hyperparameters h;
  h.family = "llama";
  h.vocabulary = 40;
  h.hidden = sizes.hidden;
  h.layers = 1;
  h.query_heads = sizes.query_heads;
  h.kv_heads = sizes.kv_heads;
  h.head_dim = sizes.head_dim;
  h.ffn = sizes.ffn;
  h.context = 2048;
  h.norm_epsilon = 1e-5;
  h.rope_theta = 10000.0;
  h.qkv_bias = h.output_bias = sizes.biases;
  return h;
}

// The only layer of such a decoder, its weights by role.
class Layer {
 public:
  explicit Layer(const Sizes& given)
      : sizes(given),
        decoder_(std::make_unique<Decoder>(hyperparameters_of(given))),
        weights(decoder_->layers.front()) {}

  const Sizes sizes;

 private:
  std::unique_ptr<Decoder> decoder_;

 public:
  quantize::FloatLayer weights;

  const quantize::LayerGraph& graph() const { return decoder_->layers.front(); }
  std::span<const quantize::LayerGraph> layers() const { return decoder_->layers; }
  bool has(Role role) const {
    return std::find(graph().roles.begin(), graph().roles.end(), role) != graph().roles.end();
  }
  WeightId id(Role role) const {
    const auto place = std::find(graph().roles.begin(), graph().roles.end(), role) - graph().roles.begin();
    return graph().weights.at(static_cast<size_t>(place));
  }
  quantize::FloatMatrix& operator[](Role role) { return weights.matrix(id(role)); }
  const quantize::FloatMatrix& operator[](Role role) const { return weights.matrix(id(role)); }
  // A vector of the layer; empty when it has none of the role.
  std::vector<float> vector(Role role) const {
    return has(role) ? (*this)[role].values : std::vector<float>();
  }
  // What the matrix of this role reads.
  template <typename Statistics>
  auto& inputs(Statistics& statistics, Role role) const {
    return statistics.inputs.at(graph().linear_of(id(role)).value());
  }
  const quantize::AttentionBlock& attention() const { return graph().attention.value(); }
};

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

inline Layer random_layer(std::mt19937& generator, const Sizes& sizes) {
  Layer layer(sizes);
  const float wide = 1.0f / std::sqrt(static_cast<float>(sizes.hidden));
  for (size_t i = 0; i < layer.graph().weights.size(); ++i) {
    const Role role = layer.graph().roles[i];
    quantize::FloatMatrix& weights = layer[role];
    const RoleKind kind = role_row(role).kind;
    if (kind == RoleKind::norm)
      weights.values = random_vector(generator, weights.columns, 1.0f, 0.3f);
    else if (kind == RoleKind::bias)
      weights.values = random_vector(generator, weights.columns, 0.0f, 0.5f);
    else
      weights = random_matrix(generator, weights.rows, weights.columns,
                              role == Role::q || role == Role::k ? 2 * wide : wide);
  }
  return layer;
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
