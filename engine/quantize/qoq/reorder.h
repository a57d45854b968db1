// Step 2 of the recipe: input channels in descending order of their largest activation, so that channels of
// like importance share the groups of a grouped scheme. The layer's function stays what it was.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/layer_statistics.h"

namespace tessera::quantize {

// The order in which `largest` descends; equal ones stay as they are. order[i] is the former index.
std::vector<size_t> descending_order(std::span<const float> largest);

// From one number for each of o's inputs, [query_heads * head_dim], to one for each channel of the KV heads,
// [kv_heads * head_dim]: the maximum over the query heads that share it.
std::vector<float> maximum_over_queries(const Attention& shape, std::span<const float> by_query_channel);

// The same value for all query heads that share a KV head: [kv_heads * head_dim] to [query_heads * head_dim].
std::vector<float> repeated_for_queries(const Attention& shape, std::span<const float> by_kv_channel);

// Reorders o's inputs within each head, one order for all query heads that share a KV head, applied to v's
// rows and bias as well.
void reorder_values(DenseProducts& products, FloatLayer& layer, LayerStatistics& statistics);

// Reorders down's inputs, applied to the rows of gate and up as well.
void reorder_ffn(DenseProducts& products, FloatLayer& layer, LayerStatistics& statistics);

}  // namespace tessera::quantize
