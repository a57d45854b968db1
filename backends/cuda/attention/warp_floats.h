// Maxima over the lanes of a warp, for the attention kernels.
#pragma once

#include "backends/cuda/instructions.h"

namespace tessera::cuda {

// Every lane gets the result. A NaN loses against anything else.
TESSERA_DEVICE float warp_largest(float value) {
  for (uint32_t mask = 16; mask > 0; mask /= 2) {
    const float other = bits_float(shuffle_xor(float_bits(value), mask));
    value = value >= other ? value : other;
  }
  return value;
}

}  // namespace tessera::cuda
