// Which kernel multiplies with 16-bit weights.
#pragma once

#include "backends/cuda/gemm/sm80_half_few.h"
#include "backends/cuda/gemm/sm80_half_tiles.h"

namespace tessera::cuda::halves {

inline constexpr uint32_t kMostFewTokens = 16;

template <class Format, bool kLarge>
void launch_few_of(Queue& queue, const LinearJob& job) {
  if (job.tokens <= 8) {
    launch_few<Few<Format, 1, kLarge>>(queue, job);
  } else {
    launch_few<Few<Format, 2, kLarge>>(queue, job);
  }
}

// The largest tiles of which every processor gets one.
template <class Format>
void launch_half(Queue& queue, const LinearJob& job) {
  const size_t processors = queue.facts().processors;
  if (job.tokens == 0 || job.weights.rows == 0) return;
  if (job.tokens <= kMostFewTokens) {
    if (queue.facts().shared_bytes >= size_t{227} << 10) {
      launch_few_of<Format, true>(queue, job);
    } else {
      launch_few_of<Format, false>(queue, job);
    }
  } else if (job.tokens > 64 && tiles_of<Tile<Format, 128, 128>>(job) >= processors) {
    launch_tiles<Tile<Format, 128, 128>>(queue, job);
  } else if (tiles_of<Tile<Format, 128, 64>>(job) >= processors) {
    launch_tiles<Tile<Format, 128, 64>>(queue, job);
  } else {
    launch_tiles<Tile<Format, 64, 64>>(queue, job);
  }
}

}  // namespace tessera::cuda::halves
