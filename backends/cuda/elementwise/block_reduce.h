// Sums and maxima over all threads of a block, in an order that depends only on the block's size.
#pragma once

#include "backends/cuda/device/views.h"

namespace tessera::cuda {

inline constexpr uint32_t kReduceWords = 32;  // of shared memory: one for each warp of the largest block

TESSERA_DEVICE float warp_sum(float value) {
  for (uint32_t mask = 16; mask > 0; mask /= 2)
    value = add_rn(value, bits_float(shuffle_xor(float_bits(value), mask)));
  return value;
}
TESSERA_DEVICE uint32_t warp_sum(uint32_t value) {
  for (uint32_t mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
TESSERA_DEVICE uint32_t warp_max(uint32_t value) {
  for (uint32_t mask = 16; mask > 0; mask /= 2) {
    const uint32_t other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// All threads of the block must call these, and all get the result. scratch holds kReduceWords words and may
// be reused at once.
TESSERA_DEVICE float block_sum(float value, Shared<float> scratch) {
  value = warp_sum(value);
  if (lane_index() == 0) scratch.store(warp_index(), value);
  block_barrier();
  float total = 0;
  for (uint32_t warp = 0; warp < block_size() / 32; ++warp) total = add_rn(total, scratch[warp]);
  block_barrier();
  return total;
}
TESSERA_DEVICE uint32_t block_sum(uint32_t value, Shared<uint32_t> scratch) {
  value = warp_sum(value);
  if (lane_index() == 0) scratch.store(warp_index(), value);
  block_barrier();
  uint32_t total = 0;
  for (uint32_t warp = 0; warp < block_size() / 32; ++warp) total += scratch[warp];
  block_barrier();
  return total;
}
TESSERA_DEVICE uint32_t block_max(uint32_t value, Shared<uint32_t> scratch) {
  value = warp_max(value);
  if (lane_index() == 0) scratch.store(warp_index(), value);
  block_barrier();
  uint32_t largest = 0;
  for (uint32_t warp = 0; warp < block_size() / 32; ++warp) {
    const uint32_t other = scratch[warp];
    largest = other > largest ? other : largest;
  }
  block_barrier();
  return largest;
}

}  // namespace tessera::cuda
