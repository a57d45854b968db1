#include "engine/quantize/qoq/smooth_outputs.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>

#include "engine/quantize/calibration/float_ops.h"
#include "engine/quantize/qoq/reorder.h"
#include "engine/quantize/qoq/rounded_matrix.h"

namespace tessera::quantize {

namespace {

constexpr std::array<double, 7> kAlphas = {0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3};
constexpr double kMostDivisor = 1e4;  // so that weights of channels that are nearly always 0 stay within f16
constexpr size_t kRowBlock = 16;

void multiply_columns(DenseProducts& products, FloatMatrix& matrix, std::span<const float> factors) {
  for_row_blocks(products, matrix.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row)
      for (size_t i = 0; i < factors.size(); ++i) matrix.values[row * matrix.columns + i] *= factors[i];
  });
}

void divide_columns(DenseProducts& products, FloatMatrix& matrix, std::span<const float> divisors) {
  for_row_blocks(products, matrix.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row)
      for (size_t i = 0; i < divisors.size(); ++i) matrix.values[row * matrix.columns + i] /= divisors[i];
  });
}

// The matrix and its bias.
void divide_rows(FloatLayer& layer, const LinearPart& part, std::span<const float> divisors) {
  FloatMatrix& matrix = layer.matrix(part.weight);
  for (size_t row = 0; row < matrix.rows; ++row)
    for (float& value : matrix.row(row)) value /= divisors[row];
  const std::span<float> bias = layer.bias(part);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] /= divisors[i];
}

// The best of no smoothing and every alpha by error(divisors).
template <typename Divisors, typename Error>
std::vector<float> best_divisors(size_t count, Divisors divisors, Error error) {
  std::vector<float> best(count, 1.0f);
  double best_error = error(best);
  for (const double alpha : kAlphas) {
    std::vector<float> candidate = divisors(alpha);
    const double candidate_error = error(candidate);
    if (!(candidate_error < best_error)) continue;
    best_error = candidate_error;
    best = std::move(candidate);
  }
  return best;
}

}  // namespace

std::vector<float> largest_by_column(const FloatMatrix& weights) {
  std::vector<float> largest(weights.columns, 0.0f);
  for (size_t row = 0; row < weights.rows; ++row)
    for (size_t i = 0; i < weights.columns; ++i)
      largest[i] = std::max(largest[i], std::abs(weights.values[row * weights.columns + i]));
  return largest;
}

std::vector<float> input_divisors(std::span<const float> largest_input, std::span<const float> largest_weight,
                                  double alpha) {
  assert(largest_input.size() == largest_weight.size());
  std::vector<double> logarithms(largest_input.size(), 0.0);
  double sum = 0;
  size_t used = 0;
  const auto is_used = [&](size_t i) { return largest_input[i] > 0 && largest_weight[i] > 0; };
  for (size_t i = 0; i < logarithms.size(); ++i) {
    if (!is_used(i)) continue;
    logarithms[i] = alpha * std::log(static_cast<double>(largest_input[i])) -
                    (1 - alpha) * std::log(static_cast<double>(largest_weight[i]));
    sum += logarithms[i];
    ++used;
  }
  std::vector<float> divisors(logarithms.size(), 1.0f);
  const double mean = used > 0 ? sum / static_cast<double>(used) : 0;
  for (size_t i = 0; i < divisors.size(); ++i)
    if (is_used(i))
      divisors[i] =
          static_cast<float>(std::clamp(std::exp(logarithms[i] - mean), 1 / kMostDivisor, kMostDivisor));
  return divisors;
}

std::vector<float> value_divisors(DenseProducts& products, Scheme scheme, const FloatLayer& layer,
                                  const LayerStatistics& statistics, const AttentionScore& score,
                                  std::optional<double> alpha) {
  const AttentionBlock& block = *layer.graph().attention;
  const Attention& shape = block.shape;
  const FloatMatrix& unsmoothed = layer.matrix(block.o.weight);
  const std::vector<float> inputs = maximum_over_queries(shape, statistics.inputs.at(block.output).largest);
  const std::vector<float> columns = maximum_over_queries(shape, largest_by_column(unsmoothed));
  if (alpha) return input_divisors(inputs, columns, *alpha);
  return best_divisors(
      inputs.size(), [&](double each) { return input_divisors(inputs, columns, each); },
      [&](std::span<const float> divisors) {
        FloatMatrix value = score.values();
        divide_columns(products, value, divisors);
        round_to_kv4(products, shape.head_dim, value);
        FloatMatrix read = score.attended(score.inputs_with_values(value));
        round_to_int8(products, read);
        FloatMatrix o = unsmoothed;
        multiply_columns(products, o, repeated_for_queries(shape, divisors));
        return score.error(read, rounded_to_rows(products, scheme, o, {}));
      });
}

std::vector<float> ffn_divisors(DenseProducts& products, DenseProduct::Precision precision, Scheme scheme,
                                const FloatLayer& layer, const LayerStatistics& statistics,
                                std::optional<double> alpha) {
  const FeedForwardBlock& block = *layer.graph().feed_forward;
  const FloatMatrix& unsmoothed = layer.matrix(block.down.weight);
  const InputStatistics& inputs = statistics.inputs.at(block.output);
  const std::vector<float> columns = largest_by_column(unsmoothed);
  if (alpha) return input_divisors(inputs.largest, columns, *alpha);
  const FloatMatrix& sample = inputs.sample;
  const FloatMatrix output = project(products, precision, sample, unsmoothed, {});
  return best_divisors(
      columns.size(), [&](double each) { return input_divisors(inputs.largest, columns, each); },
      [&](std::span<const float> divisors) {
        FloatMatrix read = sample;
        divide_columns(products, read, divisors);
        round_to_int8(products, read);
        FloatMatrix down = unsmoothed;
        multiply_columns(products, down, divisors);
        return squared_difference(
            products, project(products, precision, read, rounded_to_rows(products, scheme, down, {}), {}),
            output);
      });
}

void apply_value_divisors(DenseProducts& products, std::span<const float> divisors, FloatLayer& layer,
                          LayerStatistics& statistics) {
  const AttentionBlock& block = *layer.graph().attention;
  const std::vector<float> by_input = repeated_for_queries(block.shape, divisors);
  divide_rows(layer, block.v, divisors);
  multiply_columns(products, layer.matrix(block.o.weight), by_input);
  divide_inputs(products, statistics.inputs.at(block.output), by_input);
}

void apply_ffn_divisors(DenseProducts& products, std::span<const float> divisors, FloatLayer& layer,
                        LayerStatistics& statistics) {
  const FeedForwardBlock& block = *layer.graph().feed_forward;
  divide_rows(layer, block.up, divisors);
  multiply_columns(products, layer.matrix(block.down.weight), divisors);
  divide_inputs(products, statistics.inputs.at(block.output), divisors);
}

}  // namespace tessera::quantize
