// What calibration keeps of a layer after the whole text has passed through it, and how it follows changes of
// the layer that leave its function as it was.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/calibration/input_statistics.h"

namespace tessera::quantize {

// The beginnings of some windows, for searches that need attention as a whole.
struct AttentionSample {
  std::vector<size_t> windows;  // lengths
  FloatMatrix input;            // [sum of windows, hidden]: what q, k and v read
};

struct LayerStatistics {
  std::map<size_t, InputStatistics> inputs;  // of every Linear op of the layer
  // Of a layer with an AttentionBlock; empty otherwise.
  std::vector<float> largest_key;  // [kv_heads * head_dim] max |K| as the cache is given them
  AttentionSample sample;
};

// Column i of the inputs is now what column order[i] was.
void reorder_inputs(DenseProducts& products, InputStatistics& statistics, std::span<const size_t> order);

// Column i of the inputs has been divided by divisors[i].
void divide_inputs(DenseProducts& products, InputStatistics& statistics, std::span<const float> divisors);

}  // namespace tessera::quantize
