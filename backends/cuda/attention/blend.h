// Combines the results over the chunks of a context, in order, each relative to the largest score so far.
#pragma once

#include "backends/cuda/device/kernel_instructions.h"

namespace tessera::cuda {

// State of a query after some chunks.
struct Blended {
  float largest;  // score
  float total;    // sum of the weights
};

struct BlendFactors {
  float before;
  float chunk;
};

// Adds another chunk's largest score and total, and returns the factors for its weighted values and those
// before.
TESSERA_DEVICE BlendFactors blend(Blended& so_far, float largest, float total) {
  const float top = larger(so_far.largest, largest);
  const BlendFactors factors = {power_of_two(add_rn(so_far.largest, -top)),
                                power_of_two(add_rn(largest, -top))};
  so_far.largest = top;
  so_far.total = multiply_add(total, factors.chunk, multiply_rn(so_far.total, factors.before));
  return factors;
}

// The same for an element of the weighted values.
TESSERA_DEVICE float blend(float before, float chunk, const BlendFactors& factors) {
  return multiply_add(chunk, factors.chunk, multiply_rn(before, factors.before));
}

}  // namespace tessera::cuda
