// Kernels for measuring limits: a plain copy, and products of the tensor cores without loads.
#pragma once

#include "backends/cuda/device/device.h"

namespace tessera::cuda {

inline constexpr uint32_t kCopyBlockBytes = 16384;

// Queues a copy of `bytes` bytes, a multiple of kCopyBlockBytes.
void copy_bytes(Queue& queue, Global<const std::byte> from, Global<std::byte> to, size_t bytes);

// Products of 8-bit ones; each thread stores the sum of its results in out.
struct MultiplyJob {
  Global<uint32_t> out;  // [threads]
  uint32_t rounds = 0;
};

// With mma.sync on registers: in every round each of `warps` warps, a multiple of kMultiplyWarps, computes
// kMultiplyChains independent products of 16 x 32 by 32 x 8.
inline constexpr uint32_t kMultiplyWarps = 8;
inline constexpr uint32_t kMultiplyChains = 8;
inline constexpr double kMultiplyOperations = 2.0 * 16 * 32 * 8;  // of one product
void multiply_ones(Queue& queue, const MultiplyJob& job, uint32_t warps);

// With wgmma, where the queue's features have warpgroups: in every round each of the kMultiplyGroups
// warpgroups of each of `blocks` blocks computes kGroupChain products of 64 x 32, in registers, by 32 x 256,
// in shared memory.
inline constexpr uint32_t kMultiplyGroups = 2;
inline constexpr uint32_t kMultiplyGroupThreads = 128 * kMultiplyGroups;  // of a block
inline constexpr uint32_t kGroupChain = 8;
inline constexpr double kGroupOperations = 2.0 * 64 * 32 * 256;  // of one product
void multiply_ones_by_groups(Queue& queue, const MultiplyJob& job, uint32_t blocks);

}  // namespace tessera::cuda
