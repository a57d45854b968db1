// Step 5 of the recipe for q and k: clip ratios by the output of the attention block, which depends on all
// rows of a head at once.
#pragma once

#include <span>
#include <vector>

#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/float_layer.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// For the matrix of q or of k, `part` of the layer's AttentionBlock, one ratio per row: the one ratio for all
// rows out of 1 and 1 - 0.8 g / 40, g = 1 … 40, with which rounding this matrix alone moves the block's
// output least, or by_row where that moves it less still. The search ends when kMostFruitless ratios in a row
// are no better than those before: far below the best ratio the error only grows. Every ratio costs attention
// over the whole sample, hence steps twice as wide as those by row.
inline constexpr int kMostFruitless = 8;
std::vector<float> best_attention_clips(DenseProducts& products, Scheme scheme, const FloatLayer& layer,
                                        const LinearPart& part, const AttentionScore& score,
                                        std::span<const float> by_row);

}  // namespace tessera::quantize
