// Kernels that do nothing but what is measured: bytes moved, and products of the tensor cores.
#pragma once

#include "backends/cuda/device/device.h"

namespace tessera::cuda {

inline constexpr uint32_t kCopyBlockBytes = 16384;

// Copies bytes, a multiple of kCopyBlockBytes.
void copy_bytes(Queue& queue, Global<const std::byte> from, Global<std::byte> to, size_t bytes);

// Products of bytes, all ones: the sum of each thread's results lies in out afterwards.
struct MultiplyJob {
  Global<uint32_t> out;  // [threads]
  uint32_t rounds = 0;
};

// By mma.sync on registers: each of `warps` warps, a multiple of kMultiplyWarps, makes kMultiplyChains
// products of 16 x 32 by 32 x 8 in every round.
inline constexpr uint32_t kMultiplyWarps = 8;
inline constexpr uint32_t kMultiplyChains = 8;
inline constexpr double kMultiplyOperations = 2.0 * 16 * 32 * 8;  // of one product
void multiply_ones(Queue& queue, const MultiplyJob& job, uint32_t warps);

// By wgmma, where the queue's features have warpgroups: each of `blocks` blocks has kMultiplyGroups of them,
// and each makes kGroupChain products of 64 x 32, in registers, by 32 x 256, in shared memory, in every
// round.
inline constexpr uint32_t kMultiplyGroups = 2;
inline constexpr uint32_t kMultiplyGroupThreads = 128 * kMultiplyGroups;  // of a block
inline constexpr uint32_t kGroupChain = 8;
inline constexpr double kGroupOperations = 2.0 * 64 * 32 * 256;  // of one product
void multiply_ones_by_groups(Queue& queue, const MultiplyJob& job, uint32_t blocks);

}  // namespace tessera::cuda
