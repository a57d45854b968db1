// Step 3 of the recipe: channels of the keys are divided by λ and those of the queries multiplied by it, so
// that no key channel spoils the 4-bit KV cache for the others. Scores stay what they were.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_statistics.h"

namespace tessera::quantize {

// λ_i = λ_{i + d/2} = max(largest_i, largest_{i + d/2})^alpha within each head of head_dim d, so that scaling
// commutes with RoPE; scaled to a geometric mean of 1. A channel that is always 0 counts like the smallest
// that is not.
std::vector<float> key_scales(std::span<const float> largest, size_t head_dim, double alpha);

// The exponent out of 0, 0.1, …, 1 whose keys lose least in a 4-bit KV cache, by the attention block's
// output.
double best_key_alpha(DenseProducts& products, size_t head_dim, const AttentionScore& score,
                      std::span<const float> largest);

// Only for layers whose keys_can_be_scaled: k's rows and bias over λ, q's times λ of the KV head they meet.
// The statistics' keys follow.
void apply_key_scales(std::span<const float> scales, FloatLayer& layer, LayerStatistics& statistics);

}  // namespace tessera::quantize
