// Step 5 of the recipe for q and k: clip ratios by the output of the attention block, which depends on all
// rows of a head at once.
#pragma once

#include <span>
#include <vector>

#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/layer_weights.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// One ratio per row: the one ratio for all rows out of 1 and 1 - 0.8 g / 40, g = 1 … 40, with which rounding
// k (or q) alone moves the block's output least, or by_row where that moves it less still. The search ends
// when kPatience ratios in a row have brought nothing: far below the best ratio the error only grows. Every
// ratio costs attention over the whole sample, hence steps twice as wide as those by row.
inline constexpr int kPatience = 8;
std::vector<float> best_key_clips(DenseProducts& products, Scheme scheme, const LayerWeights& weights,
                                  const AttentionScore& score, std::span<const float> by_row);
std::vector<float> best_query_clips(DenseProducts& products, Scheme scheme, const LayerWeights& weights,
                                    const AttentionScore& score, std::span<const float> by_row);

}  // namespace tessera::quantize
