#include "engine/quantize/recipe/scheme_steps.h"

#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/lut/channel_scaling.h"
#include "engine/quantize/lut/table_matrix.h"
#include "engine/quantize/qoq/reorder.h"
#include "engine/quantize/qoq/rounded_matrix.h"
#include "engine/quantize/qoq/smooth_outputs.h"

namespace tessera::quantize {

namespace {

// Groups of columns that a row's integer scales belong to exist in this scheme only.
void reorder_groups(const LayerContext& context, const Recipe& recipe, Scheme scheme, FloatLayer& layer,
                    LayerStatistics& statistics) {
  if (!recipe.reorder || scheme != Scheme::w4a8_g128) return;
  if (layer.graph().attention) reorder_values(context.products, layer, statistics);
  if (layer.graph().feed_forward) reorder_ffn(context.products, layer, statistics);
}

void smooth_outputs(const LayerContext& context, const Recipe& recipe, Scheme scheme, FloatLayer& layer,
                    LayerStatistics& statistics) {
  if (!recipe.smooth_outputs) return;
  DenseProducts& products = context.products;
  if (layer.graph().attention) {
    const AttentionScore score(products, context.precision, layer, statistics.sample);
    const std::vector<float> divisors =
        value_divisors(products, scheme, layer, statistics, score, recipe.output_alpha);
    apply_value_divisors(products, divisors, layer, statistics);
  }
  if (layer.graph().feed_forward) {
    const std::vector<float> divisors =
        ffn_divisors(products, context.precision, scheme, layer, statistics, recipe.output_alpha);
    apply_ffn_divisors(products, divisors, layer, statistics);
  }
}

// A file of floats holds the model that the default scheme would round.
void reorder_floats(const LayerContext& context, const Recipe& recipe, Scheme, FloatLayer& layer,
                    LayerStatistics& statistics) {
  reorder_groups(context, recipe, Scheme::w4a8_g128, layer, statistics);
}

void smooth_floats(const LayerContext& context, const Recipe& recipe, Scheme, FloatLayer& layer,
                   LayerStatistics& statistics) {
  smooth_outputs(context, recipe, Scheme::w4a8_g128, layer, statistics);
}

// Tables have scales of their own for every group: no order of channels helps them.
void keep_order(const LayerContext&, const Recipe&, Scheme, FloatLayer&, LayerStatistics&) {}

void scale_table_inputs(const LayerContext& context, const Recipe& recipe, Scheme scheme, FloatLayer& layer,
                        LayerStatistics& statistics) {
  if (recipe.awq) scale_channels(context, *table_format(scheme), recipe.scale_search, layer, statistics);
}

FloatMatrix rounded_rows(DenseProducts& products, Scheme scheme, const FloatMatrix& weights) {
  return rounded_to_rows(products, scheme, weights, {});
}

FloatMatrix rounded_groups(DenseProducts& products, Scheme scheme, const FloatMatrix& weights) {
  return rounded_to_table(products, *table_format(scheme), weights, false, {});
}

void encode_row_scales(DenseProducts& products, const Recipe& recipe, Scheme scheme,
                       const FloatMatrix& weights, std::span<const float> clips, InputStatistics* inputs,
                       std::span<std::byte> out) {
  encode_rows_of(products, scheme, weights, clips, recipe.feedback ? inputs : nullptr, out);
}

void encode_plainly(DenseProducts& products, const Recipe&, Scheme scheme, const FloatMatrix& weights,
                    std::span<const float>, InputStatistics*, std::span<std::byte> out) {
  encode_rows_of(products, scheme, weights, {}, nullptr, out);
}

void encode_groups(DenseProducts& products, const Recipe& recipe, Scheme scheme, const FloatMatrix& weights,
                   std::span<const float>, InputStatistics* inputs, std::span<std::byte> out) {
  encode_with_table(products, scheme, weights, recipe.tables(), inputs, out);
}

constexpr SchemeSteps kFloats{reorder_floats, smooth_floats, false, false, rounded_rows, encode_plainly};
constexpr SchemeSteps kRowScales{reorder_groups, smooth_outputs, true, true, rounded_rows, encode_row_scales};
// Codes that exist for files of other tools: rounded as they come.
void leave_inputs(const LayerContext&, const Recipe&, Scheme, FloatLayer&, LayerStatistics&) {}

constexpr SchemeSteps kPlainGroups{keep_order, leave_inputs, false, true, rounded_rows, encode_plainly};
constexpr SchemeSteps kTables{keep_order, scale_table_inputs, false, true, rounded_groups, encode_groups};

}  // namespace

const SchemeSteps& scheme_steps(Scheme scheme) {
  if (table_format(scheme)) return kTables;
  if (scheme_facts(scheme).group_scales()) return kPlainGroups;
  return has_row_scales(scheme) ? kRowScales : kFloats;
}

}  // namespace tessera::quantize
