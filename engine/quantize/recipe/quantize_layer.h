// One layer through the recipe: its function-preserving changes, then its stored bytes.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_context.h"
#include "engine/quantize/calibration/layer_statistics.h"
#include "engine/quantize/plan/rounding_error.h"
#include "engine/quantize/recipe/recipe.h"

namespace tessera::quantize {

// Steps 2 to 4: reorder, SmoothAttention and smoothing of o's and down's inputs, or for table schemes
// SmoothAttention and scaling of channels, each where the recipe has it. scheme: of the matrices.
// Steps whose structure the layer does not have are left out with a note.
void smooth_layer(const LayerContext& context, const Recipe& recipe, Scheme scheme, FloatLayer& layer,
                  LayerStatistics& statistics);

struct EncodedTensor {
  std::vector<std::byte> bytes;
  ErrorSums sums;
};

// Steps 5 and 6 and the codes, in the order of planned, which is that of the layer's weights. Without
// statistics every matrix is rounded. Weights are freed as they are done. Throws FileError for values that
// cannot be stored and std::runtime_error, naming the tensor, when feedback fails. done is called with the
// number of weights of every finished tensor.
std::vector<EncodedTensor> encode_layer(const LayerContext& context, const Recipe& recipe, Scheme scheme,
                                        const std::string& folder,
                                        std::span<const PlannedWeight* const> planned, FloatLayer& layer,
                                        LayerStatistics* statistics,
                                        const std::function<void(uint64_t)>& done);

}  // namespace tessera::quantize
