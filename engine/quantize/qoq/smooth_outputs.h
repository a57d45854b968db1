// Step 4 of the recipe (SmoothQuant's idea): inputs of o and down are divided by a factor per channel and the
// columns that read them multiplied by it, so that neither has to be rounded in steps that suit only a few
// channels. The division is folded into v's rows and up's rows. The layer's function stays what it was.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "engine/quantize/calibration/attention_score.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_statistics.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// λ_j = largest_input_j^alpha / largest_weight_j^(1 - alpha), scaled to a geometric mean of 1. A channel
// whose inputs or weights are all 0 gets 1.
std::vector<float> input_divisors(std::span<const float> largest_input, std::span<const float> largest_weight,
                                  double alpha);

// max |w| of every column.
std::vector<float> largest_by_column(const FloatMatrix& weights);

// λ for o's inputs by KV channel, [kv_heads * head_dim], maxima taken over the query heads that share it;
// alpha, where none is given, by the error of the attention block's output with rounded weights of o, int8
// inputs and values from a 4-bit KV cache. All ones when no smoothing is best.
std::vector<float> value_divisors(DenseProducts& products, Scheme scheme, const FloatLayer& layer,
                                  const LayerStatistics& statistics, const AttentionScore& score,
                                  std::optional<double> alpha);

// λ for down's inputs, [ffn]; alpha, where none is given, by the error of down's output with rounded weights
// and int8 inputs on the sample. All ones when no smoothing is best.
std::vector<float> ffn_divisors(DenseProducts& products, DenseProduct::Precision precision, Scheme scheme,
                                const FloatLayer& layer, const LayerStatistics& statistics,
                                std::optional<double> alpha);

// v's rows and bias over λ, o's columns times λ; up's rows over λ, down's columns times λ. The statistics
// follow.
void apply_value_divisors(DenseProducts& products, std::span<const float> divisors, FloatLayer& layer,
                          LayerStatistics& statistics);
void apply_ffn_divisors(DenseProducts& products, std::span<const float> divisors, FloatLayer& layer,
                        LayerStatistics& statistics);

}  // namespace tessera::quantize
