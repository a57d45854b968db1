#include "backends/cuda/limits/limit_kernels.h"

#include "backends/cuda/launch.h"

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

}  // namespace

void copy_bytes(Queue& queue, Global<const std::byte> from, Global<std::byte> to, size_t bytes) {
  launch(queue, {static_cast<uint32_t>(bytes / kCopyBlockBytes), 1, 1, kCopyThreads, 0}, &copy_blocks,
         {from.as<const Words4>(), to.as<Words4>()});
}

void multiply_ones(Queue& queue, const MultiplyJob& job, uint32_t warps) {
  launch(queue, {warps / kMultiplyWarps, 1, 1, kMultiplyWarps * 32, 0}, &multiply_blocks, job);
}

}  // namespace tessera::cuda
