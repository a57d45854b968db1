#include "engine/quantize/lut/channel_scaling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <optional>
#include <utility>

#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/float_ops.h"
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
  Scaling(const LayerContext& context, const TableFormat& format, bool scale_search, FloatLayer& layer,
          LayerStatistics& statistics)
      : context_(context),
        products_(context.products),
        format_(format),
        scale_search_(scale_search),
        layer_(layer),
        graph_(layer.graph()),
        statistics_(statistics) {}

  void attention_inputs() {
    const AttentionBlock& block = *graph_.attention;
    const std::vector<WeightId> scales = graph_.scales_before(block.input);
    if (scales.empty())
      return context_.say("attention inputs: left out, because something else reads them too");
    const AttentionScore score(products_, context_.precision, layer_, statistics_.sample);
    InputStatistics& inputs = statistics_.inputs.at(block.input);
    const std::vector<float> divisors =
        best("attention inputs", inputs.squares, [&](std::span<const float> candidate) {
          const FloatMatrix x = divided(statistics_.sample.input, candidate);
          FloatMatrix projected(x.rows, score.inputs().columns);
          size_t first = 0;
          for (const LinearPart& part : {block.q, block.k, block.v}) {
            const FloatMatrix weights = rounded(layer_.matrix(part.weight), candidate, inputs);
            project_into(products_, context_.precision, x, weights, layer_.bias(part), projected, first);
            first += weights.rows;
          }
          return score.error(score.attended(score.inputs_of(std::move(projected))));
        });
    for (const LinearPart& part : {block.q, block.k, block.v})
      multiply(products_, layer_.matrix(part.weight), divisors);
    for (const WeightId id : scales) divide_gain(layer_.values(id), divisors);
    divide_inputs(products_, inputs, divisors);
    divide(products_, statistics_.sample.input, divisors);
  }

  void o_inputs() {
    const AttentionBlock& block = *graph_.attention;
    const InputStatistics& inputs = statistics_.inputs.at(block.output);
    const FloatMatrix& o = layer_.matrix(block.o.weight);
    const FloatMatrix output = float_product(inputs.sample, o);
    // Query heads that share a KV head share its factors: the largest square counts.
    const std::vector<float> squares = maximum_over_queries(block.shape, inputs.squares);
    const std::vector<float> divisors = best("o inputs", squares, [&](std::span<const float> candidate) {
      const std::vector<float> by_input = repeated_for_queries(block.shape, candidate);
      return squared_difference(products_, rounded_product(inputs, o, by_input), output);
    });
    apply_value_divisors(products_, divisors, layer_, statistics_);
  }

  void ffn_inputs() {
    const FeedForwardBlock& block = *graph_.feed_forward;
    const std::vector<WeightId> scales = graph_.scales_before(block.input);
    if (scales.empty()) return context_.say("ffn inputs: left out, because something else reads them too");
    InputStatistics& inputs = statistics_.inputs.at(block.input);
    FloatMatrix& gate = layer_.matrix(block.gate.weight);
    FloatMatrix& up = layer_.matrix(block.up.weight);
    // The output of down for what gate and up make of x.
    const auto block_output = [&](const FloatMatrix& x, const FloatMatrix& with_gate,
                                  const FloatMatrix& with_up) {
      FloatMatrix both(x.rows, with_gate.rows + with_up.rows);
      project_into(products_, context_.precision, x, with_gate, layer_.bias(block.gate), both, 0);
      project_into(products_, context_.precision, x, with_up, layer_.bias(block.up), both, with_gate.rows);
      return float_product(gated(products_, block.shape, both), layer_.matrix(block.down.weight));
    };
    const FloatMatrix output = block_output(inputs.sample, gate, up);
    const std::vector<float> divisors =
        best("ffn inputs", inputs.squares, [&](std::span<const float> candidate) {
          const FloatMatrix found =
              block_output(divided(inputs.sample, candidate), rounded(gate, candidate, inputs),
                           rounded(up, candidate, inputs));
          return squared_difference(products_, found, output);
        });
    for (FloatMatrix* matrix : {&gate, &up}) multiply(products_, *matrix, divisors);
    for (const WeightId id : scales) divide_gain(layer_.values(id), divisors);
    divide_inputs(products_, inputs, divisors);
  }

  void down_inputs() {
    const FeedForwardBlock& block = *graph_.feed_forward;
    const InputStatistics& inputs = statistics_.inputs.at(block.output);
    const FloatMatrix& down = layer_.matrix(block.down.weight);
    const FloatMatrix output = float_product(inputs.sample, down);
    const std::vector<float> divisors =
        best("down inputs", inputs.squares, [&](std::span<const float> candidate) {
          return squared_difference(products_, rounded_product(inputs, down, candidate), output);
        });
    apply_ffn_divisors(products_, divisors, layer_, statistics_);
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
    context_.say(fmt::format("{}: alpha {:.1f}", place, exponent));
    return found;
  }

  // Inputs over the divisors as the scheme reads them.
  FloatMatrix divided(const FloatMatrix& inputs, std::span<const float> divisors) {
    FloatMatrix x = inputs;
    divide(products_, x, divisors);
    if (format_.int8_activations) round_to_int8(products_, x);
    return x;
  }

  // The matrix with its columns times the divisors, rounded; inputs are what it reads before the division.
  FloatMatrix rounded(const FloatMatrix& matrix, std::span<const float> divisors,
                      const InputStatistics& inputs) {
    FloatMatrix scaled = matrix;
    multiply(products_, scaled, divisors);
    std::vector<float> importance = importance_of(&inputs);
    for (size_t i = 0; i < importance.size(); ++i) importance[i] /= divisors[i] * divisors[i];
    return rounded_to_table(products_, format_, scaled, scale_search_, importance);
  }

  // What the matrix gives, without bias, when its inputs are divided and both are rounded.
  FloatMatrix rounded_product(const InputStatistics& inputs, const FloatMatrix& matrix,
                              std::span<const float> divisors) {
    return float_product(divided(inputs.sample, divisors), rounded(matrix, divisors, inputs));
  }

  FloatMatrix float_product(const FloatMatrix& x, const FloatMatrix& matrix) {
    return project(products_, context_.precision, x, matrix, {});
  }

  static void divide_gain(std::span<float> gain, std::span<const float> divisors) {
    for (size_t i = 0; i < gain.size(); ++i) gain[i] /= divisors[i];
  }

  const LayerContext& context_;
  DenseProducts& products_;
  TableFormat format_;
  bool scale_search_;
  FloatLayer& layer_;
  const LayerGraph& graph_;
  LayerStatistics& statistics_;
};

}  // namespace

std::vector<float> channel_divisors(std::span<const float> mean_squares, double alpha) {
  std::vector<double> logarithms(mean_squares.size(), 0.0);
  double sum = 0;
  size_t used = 0;
  for (size_t i = 0; i < mean_squares.size(); ++i) {
    if (!(mean_squares[i] > 0)) continue;
    logarithms[i] = alpha * 0.5 * std::log(static_cast<double>(mean_squares[i]));
    sum += logarithms[i];
    ++used;
  }
  const double mean = used > 0 ? sum / static_cast<double>(used) : 0;
  std::vector<float> divisors(mean_squares.size(), 1.0f);
  for (size_t i = 0; i < divisors.size(); ++i)
    if (mean_squares[i] > 0)
      divisors[i] =
          static_cast<float>(std::clamp(std::exp(logarithms[i] - mean), 1 / kMostDivisor, kMostDivisor));
  return divisors;
}

void scale_channels(const LayerContext& context, const TableFormat& format, bool scale_search,
                    FloatLayer& layer, LayerStatistics& statistics) {
  Scaling scaling(context, format, scale_search, layer, statistics);
  if (layer.graph().attention) {
    scaling.attention_inputs();
    scaling.o_inputs();
  }
  if (layer.graph().feed_forward) {
    scaling.ffn_inputs();
    scaling.down_inputs();
  }
}

}  // namespace tessera::quantize
