#include "engine/quantize/lut/channel_scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/lut/table_matrix.h"
#include "engine/quantize/qoq/reorder.h"
#include "engine/quantize/qoq/smooth_outputs.h"

namespace tessera::quantize {

namespace {

constexpr int kAlphas = 11;
constexpr double kMostDivisor = 1e4;
constexpr size_t kRowBlock = 16;

// factor(column, value) over every value of a matrix
template <typename Change>
void change_columns(DenseProducts& products, FloatMatrix& matrix, std::span<const float> by, Change change) {
  assert(by.size() == matrix.columns);
  for_row_blocks(products, matrix.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row)
      for (size_t i = 0; i < by.size(); ++i)
        matrix.values[row * matrix.columns + i] = change(matrix.values[row * matrix.columns + i], by[i]);
  });
}

void multiply(DenseProducts& products, FloatMatrix& matrix, std::span<const float> factors) {
  change_columns(products, matrix, factors, [](float value, float factor) { return value * factor; });
}

void divide(DenseProducts& products, FloatMatrix& matrix, std::span<const float> divisors) {
  change_columns(products, matrix, divisors, [](float value, float divisor) { return value / divisor; });
}

class Scaling {
 public:
  Scaling(const LayerContext& context, const TableFormat& format, bool scale_search, LayerWeights& weights,
          LayerStatistics& statistics)
      : context_(context),
        products_(context.products),
        format_(format),
        scale_search_(scale_search),
        weights_(weights),
        statistics_(statistics) {}

  void attention_inputs() {
    const AttentionScore score(products_, context_.precision, context_.shape, weights_, statistics_.sample);
    const InputStatistics& inputs = statistics_.attention;
    const std::vector<float> divisors =
        best("attention inputs", inputs.squares, [&](std::span<const float> candidate) {
          const FloatMatrix x = read(statistics_.sample.input, candidate);
          FloatMatrix query = product(x, weights_.q, candidate, inputs, weights_.q_bias);
          FloatMatrix key = product(x, weights_.k, candidate, inputs, weights_.k_bias);
          const FloatMatrix value = product(x, weights_.v, candidate, inputs, weights_.v_bias);
          turn_to_positions(products_, context_.shape, statistics_.sample.windows, query);
          turn_to_positions(products_, context_.shape, statistics_.sample.windows, key);
          return score.error(score.attended(query, key, value));
        });
    for (FloatMatrix* matrix : {&weights_.q, &weights_.k, &weights_.v})
      multiply(products_, *matrix, divisors);
    divide_gain(weights_.attention_norm, divisors);
    divide_inputs(products_, statistics_.attention, divisors);
    divide(products_, statistics_.sample.input, divisors);
  }

  void o_inputs() {
    const InputStatistics& inputs = statistics_.o;
    const FloatMatrix output = float_product(inputs.sample, weights_.o);
    // Query heads that share a KV head share its factors: the largest square counts.
    const std::vector<float> squares = maximum_over_queries(context_.shape, inputs.squares);
    const std::vector<float> divisors = best("o inputs", squares, [&](std::span<const float> candidate) {
      const std::vector<float> by_input = repeated_for_queries(context_.shape, candidate);
      return squared_difference(
          products_, product(read(inputs.sample, by_input), weights_.o, by_input, inputs, {}), output);
    });
    apply_value_divisors(products_, context_.shape, divisors, weights_, statistics_);
  }

  void ffn_inputs() {
    const InputStatistics& inputs = statistics_.ffn;
    const auto block = [&](FloatMatrix gate, const FloatMatrix& up) {
      apply_gate(products_, gate, up);
      return float_product(gate, weights_.down);
    };
    const FloatMatrix output =
        block(float_product(inputs.sample, weights_.gate), float_product(inputs.sample, weights_.up));
    const std::vector<float> divisors =
        best("ffn inputs", inputs.squares, [&](std::span<const float> candidate) {
          const FloatMatrix x = read(inputs.sample, candidate);
          return squared_difference(products_,
                                    block(product(x, weights_.gate, candidate, inputs, {}),
                                          product(x, weights_.up, candidate, inputs, {})),
                                    output);
        });
    for (FloatMatrix* matrix : {&weights_.gate, &weights_.up}) multiply(products_, *matrix, divisors);
    divide_gain(weights_.ffn_norm, divisors);
    divide_inputs(products_, statistics_.ffn, divisors);
  }

  void down_inputs() {
    const InputStatistics& inputs = statistics_.down;
    const FloatMatrix output = float_product(inputs.sample, weights_.down);
    const std::vector<float> divisors =
        best("down inputs", inputs.squares, [&](std::span<const float> candidate) {
          return squared_difference(
              products_, product(read(inputs.sample, candidate), weights_.down, candidate, inputs, {}),
              output);
        });
    apply_ffn_divisors(products_, divisors, weights_, statistics_);
  }

 private:
  template <typename Error>
  std::vector<float> best(std::string_view place, std::span<const float> squares, Error error) {
    std::vector<float> found(squares.size(), 1.0f);
    double least = error(found);
    double exponent = 0;
    for (int step = 1; step < kAlphas; ++step) {
      const double alpha = static_cast<double>(step) / (kAlphas - 1);
      std::vector<float> candidate = channel_divisors(squares, alpha);
      const double each = error(candidate);
      if (!(each < least)) continue;
      least = each;
      exponent = alpha;
      found = std::move(candidate);
    }
    if (context_.note) context_.note(fmt::format("{}: alpha {:.1f}", place, exponent));
    return found;
  }

  // Inputs over the divisors as the scheme reads them.
  FloatMatrix read(const FloatMatrix& inputs, std::span<const float> divisors) {
    FloatMatrix x = inputs;
    divide(products_, x, divisors);
    if (format_.int8_activations) round_to_int8(products_, x);
    return x;
  }

  // What such inputs give with the matrix's columns times the divisors, rounded.
  FloatMatrix product(const FloatMatrix& x, const FloatMatrix& matrix, std::span<const float> divisors,
                      const InputStatistics& inputs, std::span<const float> bias) {
    FloatMatrix scaled = matrix;
    multiply(products_, scaled, divisors);
    std::vector<float> importance = importance_of(&inputs);
    for (size_t i = 0; i < importance.size(); ++i) importance[i] /= divisors[i] * divisors[i];
    return project(products_, context_.precision, x,
                   rounded_to_table(products_, format_, scaled, scale_search_, importance), bias);
  }

  FloatMatrix float_product(const FloatMatrix& x, const FloatMatrix& matrix) {
    return project(products_, context_.precision, x, matrix, {});
  }

  static void divide_gain(std::vector<float>& gain, std::span<const float> divisors) {
    for (size_t i = 0; i < gain.size(); ++i) gain[i] /= divisors[i];
  }

  const LayerContext& context_;
  DenseProducts& products_;
  TableFormat format_;
  bool scale_search_;
  LayerWeights& weights_;
  LayerStatistics& statistics_;
};

}  // namespace

std::vector<float> channel_divisors(std::span<const float> mean_squares, double alpha) {
  std::vector<double> logarithms(mean_squares.size(), 0.0);
  double sum = 0;
  size_t living = 0;
  for (size_t i = 0; i < mean_squares.size(); ++i) {
    if (!(mean_squares[i] > 0)) continue;
    logarithms[i] = alpha * 0.5 * std::log(static_cast<double>(mean_squares[i]));
    sum += logarithms[i];
    ++living;
  }
  const double mean = living > 0 ? sum / static_cast<double>(living) : 0;
  std::vector<float> divisors(mean_squares.size(), 1.0f);
  for (size_t i = 0; i < divisors.size(); ++i)
    if (mean_squares[i] > 0)
      divisors[i] =
          static_cast<float>(std::clamp(std::exp(logarithms[i] - mean), 1 / kMostDivisor, kMostDivisor));
  return divisors;
}

void scale_channels(const LayerContext& context, const TableFormat& format, bool scale_search,
                    LayerWeights& weights, LayerStatistics& statistics) {
  Scaling scaling(context, format, scale_search, weights, statistics);
  scaling.attention_inputs();
  scaling.o_inputs();
  scaling.ffn_inputs();
  scaling.down_inputs();
}

}  // namespace tessera::quantize
