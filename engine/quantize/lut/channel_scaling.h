// Activation-aware scaling (AWQ): the columns of input channels with large values are multiplied by a factor,
// so that they are rounded in finer steps, and what makes these inputs is divided by it. The layer's function
// stays what it was.
#pragma once

#include <span>
#include <vector>

#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_context.h"
#include "engine/quantize/calibration/layer_statistics.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// rms^alpha of every channel, scaled to a geometric mean of 1 over those that are not always 0, which get 1.
// mean_squares: [channels].
std::vector<float> channel_divisors(std::span<const float> mean_squares, double alpha);

// At each of four places, inputs are divided and the columns that read them multiplied by rms^alpha, alpha
// out of 0, 0.1, … 1: attention_norm's gain is divided for q, k and v, v's rows for o (one factor for
// all query heads that share a channel), ffn_norm's gain for gate and up, up's rows for down. alpha is chosen
// by the squared error that rounding the place's matrices (nearest codes of the default table, with or
// without the search for scales, int8 inputs under an a8 scheme) brings to what follows on the sampled
// inputs: the attention block's output, o's output, the feed-forward block's output, down's output. Only for
// table schemes. The statistics follow.
void scale_channels(const LayerContext& context, const TableFormat& format, bool scale_search,
                    FloatLayer& layer, LayerStatistics& statistics);

}  // namespace tessera::quantize
