#include "engine/quantize/qoq/smooth_attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "engine/quantize/qoq/reorder.h"

namespace tessera::quantize {

namespace {

constexpr int kAlphaSteps = 10;

// Column i of every row times factors[i].
FloatMatrix scaled(const FloatMatrix& x, std::span<const float> factors) {
  FloatMatrix out = x;
  for (size_t row = 0; row < out.rows; ++row)
    for (size_t i = 0; i < out.columns; ++i) out.values[row * out.columns + i] *= factors[i];
  return out;
}

std::vector<float> inverses(std::span<const float> values) {
  std::vector<float> result(values.size());
  std::transform(values.begin(), values.end(), result.begin(), [](float value) { return 1.0f / value; });
  return result;
}

}  // namespace

std::vector<float> key_scales(std::span<const float> largest, size_t head_dim, double alpha) {
  assert(largest.size() % head_dim == 0);
  const size_t half = head_dim / 2;
  std::vector<float> scales(largest.size(), 1.0f);
  for (size_t head = 0; head < largest.size(); head += head_dim) {
    std::vector<double> pairs(half);
    double smallest = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < half; ++i) {
      pairs[i] = static_cast<double>(std::max(largest[head + i], largest[head + i + half]));
      if (pairs[i] > 0) smallest = std::min(smallest, pairs[i]);
    }
    if (!std::isfinite(smallest)) continue;  // a head whose keys are all zero
    double logarithms = 0;
    for (double& pair : pairs) {
      pair = std::pow(std::max(pair, smallest), alpha);
      logarithms += std::log(pair);
    }
    const double mean = std::exp(logarithms / static_cast<double>(half));
    for (size_t i = 0; i < half; ++i)
      scales[head + i] = scales[head + i + half] = static_cast<float>(pairs[i] / mean);
  }
  return scales;
}

double best_key_alpha(DenseProducts& products, size_t head_dim, const AttentionScore& score,
                      std::span<const float> largest) {
  double best_alpha = 0;
  double best_error = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= kAlphaSteps; ++step) {
    const double alpha = static_cast<double>(step) / kAlphaSteps;
    const std::vector<float> scales = key_scales(largest, head_dim, alpha);
    FloatMatrix key = scaled(score.keys(), inverses(scales));
    round_to_kv4(products, head_dim, key);
    // Back in the old scale, where the queries are.
    const double error = score.error(score.attended(score.inputs_with_keys(scaled(key, scales))));
    if (error < best_error) {
      best_error = error;
      best_alpha = alpha;
    }
  }
  return best_alpha;
}

void apply_key_scales(std::span<const float> scales, FloatLayer& layer, LayerStatistics& statistics) {
  const AttentionBlock& block = *layer.graph().attention;
  assert(block.keys_can_be_scaled);
  const std::vector<float> query_scales = repeated_for_queries(block.shape, scales);
  FloatMatrix& k = layer.matrix(block.k.weight);
  FloatMatrix& q = layer.matrix(block.q.weight);
  for (size_t row = 0; row < k.rows; ++row)
    for (float& value : k.row(row)) value /= scales[row];
  for (size_t row = 0; row < q.rows; ++row)
    for (float& value : q.row(row)) value *= query_scales[row];
  const std::span<float> k_bias = layer.bias(block.k);
  const std::span<float> q_bias = layer.bias(block.q);
  for (size_t i = 0; i < k_bias.size(); ++i) k_bias[i] /= scales[i];
  for (size_t i = 0; i < q_bias.size(); ++i) q_bias[i] *= query_scales[i];
  for (size_t i = 0; i < statistics.largest_key.size(); ++i) statistics.largest_key[i] /= scales[i];
}

}  // namespace tessera::quantize
