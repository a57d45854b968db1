// Passes the calibration text through one layer of the float model and keeps what the recipe's steps need to
// know.
//
// Memory for an 8B model of the Llama 3 shape (hidden 4096, ffn 14336, f32 throughout), beyond the mapped
// checkpoint: the layer's weights 0.87 GB; second moments 3 * 4096^2 and 14336^2 floats, 1.02 GB; samples of
// 512 inputs each, 0.05 GB; activations of one block of 1024 tokens, at most four matrices of [1024, 14336]
// and some of [1024, 4096], 0.35 GB; factoring down's moments (rounded_matrix.h) another 14336^2 floats and a
// copy of the weights, 1.06 GB; the layer's stored bytes 0.11 GB. Together 3.5 GB. The residual stream of 128
// * 1024 tokens, 2.1 GB in f32, lives in a file. Training the scales of a table scheme adds the errors of one
// matrix and two sets of its codes, 0.35 GB for down.
#pragma once

#include <functional>
#include <span>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_statistics.h"

namespace tessera::quantize {

// windows are the lengths of the texts, one after another in `before`, the residual stream [tokens, hidden]
// in front of the layer. after is given the stream behind it, block by block in order, and done the number of
// tokens of each block. with_moments: whether steps that look at how inputs are correlated follow.
LayerStatistics calibrate_layer(DenseProducts& products, DenseProduct::Precision precision,
                                const FloatLayer& layer, bool with_moments, std::span<const size_t> windows,
                                std::span<const float> before,
                                const std::function<void(std::span<const float>)>& after,
                                const std::function<void(size_t tokens)>& done);

}  // namespace tessera::quantize
