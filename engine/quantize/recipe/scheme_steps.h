// How the recipe differs by the kind of scheme: plain floats, codes with one scale per row, or codes into a
// table with scales per group. One row of functions for each kind, so that nothing else tests the kind of a
// scheme.
#pragma once

#include <cstddef>
#include <span>

#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_context.h"
#include "engine/quantize/calibration/layer_statistics.h"
#include "engine/quantize/recipe/recipe.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

struct SchemeSteps {
  // Sorts input channels into the groups of a grouped scheme, before keys are smoothed.
  void (*reorder)(const LayerContext& context, const Recipe& recipe, Scheme scheme, FloatLayer& layer,
                  LayerStatistics& statistics);
  // Moves difficulty between inputs and the weights that read them, after keys are smoothed.
  void (*scale_inputs)(const LayerContext& context, const Recipe& recipe, Scheme scheme, FloatLayer& layer,
                       LayerStatistics& statistics);
  // Whether rows have ranges that a clip ratio can narrow.
  bool has_clips;
  // Whether codes stand for weights, so that rounding costs enough to be reported.
  bool has_codes;
  // The weights as plain rounding would reconstruct them.
  FloatMatrix (*rounded)(DenseProducts& products, Scheme scheme, const FloatMatrix& weights);
  // Encodes the matrix into out, stored_bytes of the scheme. clips: one ratio per row, or empty. inputs: null
  // without a calibration text; their moments may be completed above the diagonal. Throws std::runtime_error
  // when error feedback cannot factor the moments.
  void (*encode)(DenseProducts& products, const Recipe& recipe, Scheme scheme, const FloatMatrix& weights,
                 std::span<const float> clips, InputStatistics* inputs, std::span<std::byte> out);
};

const SchemeSteps& scheme_steps(Scheme scheme);  // of a scheme for matrices

}  // namespace tessera::quantize
