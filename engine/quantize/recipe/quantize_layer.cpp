#include "engine/quantize/recipe/quantize_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "engine/codec/matrix_codec.h"
#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/qoq/attention_clips.h"
#include "engine/quantize/qoq/rounded_matrix.h"
#include "engine/quantize/qoq/smooth_attention.h"
#include "engine/quantize/recipe/scheme_steps.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::quantize {

namespace {

void note(const LayerContext& context, const std::string& line) {
  if (context.note) context.note(line);
}

InputStatistics& inputs_of(std::string_view part, LayerStatistics& statistics) {
  if (part == "o") return statistics.o;
  if (part == "down") return statistics.down;
  return part == "gate" || part == "up" ? statistics.ffn : statistics.attention;
}

std::vector<float> clips_of(const LayerContext& context, const Recipe& recipe, Scheme scheme,
                            std::string_view part, LayerWeights& weights, LayerStatistics& statistics,
                            const AttentionScore* score) {
  const FloatMatrix& matrix = *weights.matrix(part);
  // Feedback chooses other codes than those an output error was measured with: what the sample taught would
  // be lost, and ratios by the error of the weights do better (docs/quantization.md).
  const std::vector<float> by_row = recipe.feedback ? search_row_clips(context.products, scheme, matrix)
                                                    : search_row_clips(context.products, scheme, matrix,
                                                                       inputs_of(part, statistics).sample);
  if (part != "q" && part != "k") return by_row;
  const std::vector<float> clips = part == "q"
                                       ? best_query_clips(context.products, scheme, weights, *score, by_row)
                                       : best_key_clips(context.products, scheme, weights, *score, by_row);
  note(context, clips == by_row ? fmt::format("{}: clip ratios by row", part)
                                : fmt::format("{}: clip ratio {:.2f}", part, clips.front()));
  return clips;
}

ErrorSums measured(const LayerContext& context, Scheme scheme, const FloatMatrix& matrix,
                   std::span<const std::byte> bytes) {
  const size_t blocks = (matrix.rows + tile::kPanelRows - 1) / tile::kPanelRows;
  std::vector<ErrorSums> parts(blocks);
  for_row_blocks(context.products, matrix.rows, tile::kPanelRows, [&](size_t first, size_t count, size_t) {
    const std::span<const float> values =
        std::span(matrix.values).subspan(first * matrix.columns, count * matrix.columns);
    parts[first / tile::kPanelRows] =
        rounding_error(scheme, matrix.rows, matrix.columns, bytes, first, values);
  });
  ErrorSums total;
  for (const ErrorSums& part : parts) total.add(part);
  return total;
}

FloatMatrix decoded(const LayerContext& context, Scheme scheme, const FloatMatrix& matrix,
                    std::span<const std::byte> bytes) {
  FloatMatrix out(matrix.rows, matrix.columns);
  for_row_blocks(context.products, matrix.rows, tile::kPanelRows, [&](size_t first, size_t count, size_t) {
    std::vector<double> values(matrix.columns);
    for (size_t row = first; row < first + count; ++row) {
      decode_row(scheme, matrix.rows, matrix.columns, bytes, row, values);
      std::transform(values.begin(), values.end(), out.row(row).begin(),
                     [](double value) { return static_cast<float>(value); });
    }
  });
  return out;
}

// What the codes cost on the sample of inputs, beside what plain rounding would have cost.
void note_output_error(const LayerContext& context, std::string_view part, Scheme scheme,
                       const FloatMatrix& matrix, const FloatMatrix& sample,
                       std::span<const std::byte> bytes) {
  if (!context.note || sample.rows == 0) return;
  DenseProducts& products = context.products;
  const FloatMatrix output = project(products, DenseProduct::Precision::f32, sample, matrix, {});
  const double power = squared_difference(products, output, FloatMatrix(output.rows, output.columns));
  const auto error = [&](const FloatMatrix& weights) {
    const FloatMatrix found = project(products, DenseProduct::Precision::f32, sample, weights, {});
    return 100 * std::sqrt(squared_difference(products, found, output) / power);
  };
  note(context, fmt::format("{}: output error {:.3f} %, rounded as it is {:.3f} %", part,
                            error(decoded(context, scheme, matrix, bytes)),
                            error(scheme_steps(scheme).rounded(products, scheme, matrix))));
}

}  // namespace

void smooth_layer(const LayerContext& context, const Recipe& recipe, Scheme scheme, LayerWeights& weights,
                  LayerStatistics& statistics) {
  DenseProducts& products = context.products;
  const SchemeSteps& steps = scheme_steps(scheme);
  steps.reorder(context, recipe, scheme, weights, statistics);
  if (recipe.smooth_attention) {
    double alpha = recipe.attention_alpha.value_or(0);
    if (!recipe.attention_alpha) {
      const AttentionScore score(products, context.precision, context.shape, weights, statistics.sample);
      alpha = best_key_alpha(products, context.shape, score, statistics.largest_key);
    }
    apply_key_scales(context.shape, key_scales(statistics.largest_key, context.shape.head_dim, alpha),
                     weights, statistics);
    note(context, fmt::format("keys: alpha {:.2f}", alpha));
  }
  steps.scale_inputs(context, recipe, scheme, weights, statistics);
}

std::vector<EncodedTensor> encode_layer(const LayerContext& context, const Recipe& recipe, Scheme scheme,
                                        const std::string& folder, std::span<const PlannedWeight> layer,
                                        LayerWeights& weights, LayerStatistics* statistics,
                                        const std::function<void(uint64_t)>& done) {
  DenseProducts& products = context.products;
  std::optional<AttentionScore> score;
  if (statistics != nullptr && recipe.clip && scheme_steps(scheme).has_clips)
    score.emplace(products, context.precision, context.shape, weights, statistics->sample);
  // q and k are scored against the whole attention block, so all clips are found before any weight goes.
  std::vector<std::vector<float>> clips(layer.size());
  for (size_t i = 0; i < layer.size(); ++i)
    if (score && layer[i].expected.shape.size() == 2)
      clips[i] = clips_of(context, recipe, scheme, part_name(layer[i]), weights, *statistics, &*score);
  score.reset();

  std::vector<EncodedTensor> encoded(layer.size());
  for (size_t i = 0; i < layer.size(); ++i) {
    const PlannedWeight& planned = layer[i];
    const std::string_view part = part_name(planned);
    std::vector<std::byte>& bytes = encoded[i].bytes;
    bytes.resize(static_cast<size_t>(stored_bytes(planned.scheme, planned.expected.shape).value()));
    if (planned.expected.shape.size() == 1) {
      const std::vector<float>& values = *weights.vector(part);
      check_representable(folder, planned, 0, values);
      std::memcpy(bytes.data(), values.data(), bytes.size());
    } else {
      FloatMatrix& matrix = *weights.matrix(part);
      check_representable(folder, planned, 0, matrix.values);
      const SchemeSteps& steps = scheme_steps(planned.scheme);
      InputStatistics* inputs = statistics != nullptr ? &inputs_of(part, *statistics) : nullptr;
      try {
        steps.encode(products, recipe, planned.scheme, matrix, clips[i], inputs, bytes);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error(
            fmt::format("{}: tensor \"{}\": {}", folder, planned.expected.name, error.what()));
      }
      if (steps.has_codes && statistics != nullptr)
        note_output_error(context, part, planned.scheme, matrix, inputs_of(part, *statistics).sample, bytes);
      encoded[i].sums = measured(context, planned.scheme, matrix, bytes);
      matrix = FloatMatrix();
    }
    if (done) done(planned.elements());
  }
  return encoded;
}

}  // namespace tessera::quantize
