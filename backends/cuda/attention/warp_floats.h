// Sums and maxima over the lanes of a warp, for the attention kernels.
#pragma once

#include "backends/cuda/device/kernel_instructions.h"

namespace tessera::cuda {

// Every lane gets the result. NaN counts as smaller than any number.
TESSERA_DEVICE float warp_largest(float value) {
  for (uint32_t mask = 16; mask > 0; mask /= 2)
    value = larger(value, bits_float(shuffle_xor(float_bits(value), mask)));
  return value;
}

// The same over four neighbouring lanes, which share a row of a product of the tensor cores.
TESSERA_DEVICE float quad_largest(float value) {
  for (uint32_t mask = 1; mask < 4; mask *= 2)
    value = larger(value, bits_float(shuffle_xor(float_bits(value), mask)));
  return value;
}
TESSERA_DEVICE float quad_sum(float value) {
  for (uint32_t mask = 1; mask < 4; mask *= 2)
    value = add_rn(value, bits_float(shuffle_xor(float_bits(value), mask)));
  return value;
}
TESSERA_DEVICE int32_t quad_sum(int32_t value) {
  for (uint32_t mask = 1; mask < 4; mask *= 2)
    value += static_cast<int32_t>(shuffle_xor(static_cast<uint32_t>(value), mask));
  return value;
}

}  // namespace tessera::cuda
