#include "engine/quantize/recipe/quantize_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "engine/codec/matrix_codec.h"
#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/float_ops.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/qoq/attention_clips.h"
#include "engine/quantize/qoq/rounded_matrix.h"
#include "engine/quantize/qoq/smooth_attention.h"
#include "engine/quantize/recipe/scheme_steps.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::quantize {

namespace {

std::string_view name_of(const PlannedWeight& planned) { return role_row(planned.expected.role).name; }

// What the matrix reads.
InputStatistics& inputs_of(const FloatLayer& layer, WeightId matrix, LayerStatistics& statistics) {
  return statistics.inputs.at(*layer.graph().linear_of(matrix));
}

// score: null for a layer without an AttentionBlock.
std::vector<float> clips_of(const LayerContext& context, const Recipe& recipe, Scheme scheme,
                            std::string_view name, const FloatLayer& layer, WeightId id,
                            LayerStatistics& statistics, const AttentionScore* score) {
  const FloatMatrix& matrix = layer.matrix(id);
  // Feedback chooses other codes than those an output error was measured with: what the sample taught would
  // be lost, and ratios by the error of the weights do better (docs/quantization.md).
  const std::vector<float> by_row =
      recipe.feedback
          ? search_row_clips(context.products, scheme, matrix)
          : search_row_clips(context.products, scheme, matrix, inputs_of(layer, id, statistics).sample);
  if (score == nullptr) return by_row;
  const AttentionBlock& block = *layer.graph().attention;
  if (id != block.q.weight && id != block.k.weight) return by_row;
  const std::vector<float> clips = best_attention_clips(
      context.products, scheme, layer, id == block.q.weight ? block.q : block.k, *score, by_row);
  context.say(clips == by_row ? fmt::format("{}: clip ratios by row", name)
                              : fmt::format("{}: clip ratio {:.2f}", name, clips.front()));
  return clips;
}

void smooth_attention(const LayerContext& context, const Recipe& recipe, FloatLayer& layer,
                      LayerStatistics& statistics) {
  const AttentionBlock& block = *layer.graph().attention;
  if (!block.keys_can_be_scaled)
    return context.say("keys: SmoothAttention left out, because rotary positions do not rotate whole heads");
  const size_t head_dim = block.shape.head_dim;
  double alpha = recipe.attention_alpha.value_or(0);
  if (!recipe.attention_alpha) {
    const AttentionScore score(context.products, context.precision, layer, statistics.sample);
    alpha = best_key_alpha(context.products, head_dim, score, statistics.largest_key);
  }
  apply_key_scales(key_scales(statistics.largest_key, head_dim, alpha), layer, statistics);
  context.say(fmt::format("keys: alpha {:.2f}", alpha));
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
void note_output_error(const LayerContext& context, std::string_view name, Scheme scheme,
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
  context.say(fmt::format("{}: output error {:.3f} %, rounded as it is {:.3f} %", name,
                          error(decoded(context, scheme, matrix, bytes)),
                          error(scheme_steps(scheme).rounded(products, scheme, matrix))));
}

}  // namespace

void smooth_layer(const LayerContext& context, const Recipe& recipe, Scheme scheme, FloatLayer& layer,
                  LayerStatistics& statistics) {
  const SchemeSteps& steps = scheme_steps(scheme);
  if (!layer.graph().attention)
    context.say(
        "attention: steps that change it are left out, because it is not made of q, k, v, rotary positions "
        "and o");
  if (!layer.graph().feed_forward)
    context.say(
        "feed-forward part: steps that change it are left out, because it is not made of gate, up and down");
  steps.reorder(context, recipe, scheme, layer, statistics);
  if (recipe.smooth_attention && layer.graph().attention)
    smooth_attention(context, recipe, layer, statistics);
  steps.scale_inputs(context, recipe, scheme, layer, statistics);
}

std::vector<EncodedTensor> encode_layer(const LayerContext& context, const Recipe& recipe, Scheme scheme,
                                        const std::string& folder,
                                        std::span<const PlannedWeight* const> planned, FloatLayer& layer,
                                        LayerStatistics* statistics,
                                        const std::function<void(uint64_t)>& done) {
  DenseProducts& products = context.products;
  const std::vector<WeightId>& ids = layer.graph().weights;
  const auto is_matrix = [&](size_t i) { return planned[i]->expected.shape.size() == 2; };
  // q and k are scored against the whole attention block, so all clips are found before any weight goes.
  std::vector<std::vector<float>> clips(planned.size());
  if (statistics != nullptr && recipe.clip && scheme_steps(scheme).has_clips) {
    std::optional<AttentionScore> score;
    if (layer.graph().attention) score.emplace(products, context.precision, layer, statistics->sample);
    for (size_t i = 0; i < planned.size(); ++i)
      if (is_matrix(i))
        clips[i] = clips_of(context, recipe, scheme, name_of(*planned[i]), layer, ids[i], *statistics,
                            score ? &*score : nullptr);
  }

  std::vector<EncodedTensor> encoded(planned.size());
  for (size_t i = 0; i < planned.size(); ++i) {
    const PlannedWeight& weight = *planned[i];
    FloatMatrix& matrix = layer.matrix(ids[i]);
    std::vector<std::byte>& bytes = encoded[i].bytes;
    bytes.resize(static_cast<size_t>(stored_bytes(weight.scheme, weight.expected.shape).value()));
    check_representable(folder, weight, 0, matrix.values);
    if (!is_matrix(i)) {
      std::memcpy(bytes.data(), matrix.values.data(), bytes.size());
    } else {
      const SchemeSteps& steps = scheme_steps(weight.scheme);
      InputStatistics* inputs = statistics != nullptr ? &inputs_of(layer, ids[i], *statistics) : nullptr;
      try {
        steps.encode(products, recipe, weight.scheme, matrix, clips[i], inputs, bytes);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error(
            fmt::format("{}: tensor \"{}\": {}", folder, weight.expected.name, error.what()));
      }
      if (steps.has_codes && inputs != nullptr)
        note_output_error(context, name_of(weight), weight.scheme, matrix, inputs->sample, bytes);
      encoded[i].sums = measured(context, weight.scheme, matrix, bytes);
      matrix = FloatMatrix();
    }
    if (done) done(weight.elements());
  }
  return encoded;
}

}  // namespace tessera::quantize
