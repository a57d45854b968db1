#include "backends/cuda/limits/limit_kernels.h"

#include "backends/cuda/device/launch.h"
#include "backends/cuda/layout/swizzled_tile.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kCopyThreads = 256;
constexpr uint32_t kCopyVectors = kCopyBlockBytes / sizeof(Words4) / kCopyThreads;

struct CopyJob {
  Global<const Words4> from;
  Global<Words4> to;
};

TESSERA_KERNEL TESSERA_BLOCK_OF(kCopyThreads) void copy_blocks(CopyJob job) {
  const size_t first = size_t{block_x()} * (kCopyVectors * kCopyThreads) + thread_index();
  Words4 held[kCopyVectors];
  for (uint32_t i = 0; i < kCopyVectors; ++i) held[i] = job.from[first + i * kCopyThreads];
  for (uint32_t i = 0; i < kCopyVectors; ++i) job.to.store(first + i * kCopyThreads, held[i]);
}

TESSERA_KERNEL TESSERA_BLOCK_OF(kMultiplyWarps * 32) void multiply_blocks(MultiplyJob job) {
  const uint32_t a[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
  const uint32_t b[2] = {0x01010101u, 0x01010101u};
  int32_t sums[kMultiplyChains][4] = {};
  for (uint32_t round = 0; round < job.rounds; ++round) {
    for (uint32_t chain = 0; chain < kMultiplyChains; ++chain) mma_m16n8k32_s8(sums[chain], a, b);
  }
  uint32_t total = 0;
  for (uint32_t chain = 0; chain < kMultiplyChains; ++chain) {
    for (uint32_t i = 0; i < 4; ++i) total += static_cast<uint32_t>(sums[chain][i]);
  }
  job.out.store(size_t{block_x()} * (kMultiplyWarps * 32) + thread_index(), total);
}

constexpr uint32_t kGroupTokens = 256;
constexpr uint32_t kGroupTileBytes = kGroupTokens * kSwizzledBytes;
constexpr uint32_t kTileProducts = kSwizzledBytes / 32;  // columns of a product

TESSERA_KERNEL TESSERA_BLOCK_OF(kMultiplyGroupThreads) void multiply_groups(MultiplyJob job) {
  if constexpr (kHasWarpgroups) {
    constexpr uint32_t kOnes = 0x01010101u;
    const Shared<Words4> tile = Shared<std::byte>(shared_memory()).as<Words4>();
    for (uint32_t i = thread_index(); i < kGroupTileBytes / sizeof(Words4); i += kMultiplyGroupThreads)
      tile.store(i, {kOnes, kOnes, kOnes, kOnes});
    proxy_fence();
    block_barrier();
    const uint32_t a[4] = {kOnes, kOnes, kOnes, kOnes};
    const uint64_t b = swizzled_descriptor(shared_address(shared_memory()));
    int32_t sums[kGroupTokens / 2] = {};
    wgmma_done(sums);  // keeps the zeros before the first fence
    for (uint32_t round = 0; round < job.rounds; ++round) {
      wgmma_fence();
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kGroupChain; ++i)
        wgmma_k32_u8s8(sums, a, advanced(b, i % kTileProducts), true);
      wgmma_commit();
      // While this warpgroup waits, the products of the other one run.
      wgmma_wait<0>();
      wgmma_done(sums);
    }
    uint32_t total = 0;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kGroupTokens / 2; ++i) total += static_cast<uint32_t>(sums[i]);
    job.out.store(size_t{block_x()} * kMultiplyGroupThreads + thread_index(), total);
  }
}

}  // namespace

void copy_bytes(Queue& queue, Global<const std::byte> from, Global<std::byte> to, size_t bytes) {
  launch(queue, {static_cast<uint32_t>(bytes / kCopyBlockBytes), 1, 1, kCopyThreads, 0}, &copy_blocks,
         {from.as<const Words4>(), to.as<Words4>()});
}

void multiply_ones(Queue& queue, const MultiplyJob& job, uint32_t warps) {
  launch(queue, {warps / kMultiplyWarps, 1, 1, kMultiplyWarps * 32, 0}, &multiply_blocks, job);
}

void multiply_ones_by_groups(Queue& queue, const MultiplyJob& job, uint32_t blocks) {
  launch(queue, {blocks, 1, 1, kMultiplyGroupThreads, kGroupTileBytes}, &multiply_groups, job);
}

}  // namespace tessera::cuda
