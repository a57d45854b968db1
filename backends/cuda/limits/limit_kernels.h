// Kernels that do nothing but what is measured: bytes moved, and products of the tensor cores.
#pragma once

#include "backends/cuda/device.h"

namespace tessera::cuda {

inline constexpr uint32_t kCopyBlockBytes = 16384;

// Copies bytes, a multiple of kCopyBlockBytes.
void copy_bytes(Queue& queue, Global<const std::byte> from, Global<std::byte> to, size_t bytes);

// Each of `warps` warps, a multiple of kMultiplyWarps, makes kMultiplyChains products of 16 x 32 by 32 x 8
// bytes, all ones, in every round. out [32 warps] receives the sum of each thread's results.
inline constexpr uint32_t kMultiplyWarps = 8;
inline constexpr uint32_t kMultiplyChains = 8;
inline constexpr double kMultiplyOperations = 2.0 * 16 * 32 * 8;  // of one product
struct MultiplyJob {
  Global<uint32_t> out;
  uint32_t rounds = 0;
};
void multiply_ones(Queue& queue, const MultiplyJob& job, uint32_t warps);

}  // namespace tessera::cuda
