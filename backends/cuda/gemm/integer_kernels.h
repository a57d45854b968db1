// Which kernel makes an integer product: by the number of tokens and what its code has. All sums are exact,
// so it does not show in the results.
#pragma once

#include "backends/cuda/gemm/few_tokens.h"
#include "backends/cuda/gemm/sm80_tiles.h"
#include "backends/cuda/gemm/sm90_tiles.h"

namespace tessera::cuda {

// Tiles of 256 tokens move the fewest bytes but are never cut: they need enough of them for every processor,
// and tokens that leave at most half of the last one empty.
inline bool takes_largest_tiles(const Queue& queue, const IntegerJob& job) {
  const size_t tiles = size_t{(job.panels + kTilePanels - 1) / kTilePanels} * ((job.tokens + 255) / 256);
  return tiles >= 2 * queue.facts().processors && (job.tokens + 127) / 128 % 2 == 0;
}

template <class Format>
void launch_integer(Queue& queue, const IntegerJob& job) {
  // Devices of compute capability 12 run the code for 9.0, with 99 KiB of shared memory.
  const bool bulk = queue.features().bulk_copies && queue.facts().shared_bytes >= size_t{227} << 10;
  if (job.tokens == 0) return;
  if (job.tokens <= 8)
    return bulk ? launch_few_tokens<FewTokens<Format, 1, true>>(queue, job)
                : launch_few_tokens<FewTokens<Format, 1, false>>(queue, job);
  if (job.tokens <= 16)
    return bulk ? launch_few_tokens<FewTokens<Format, 2, true>>(queue, job)
                : launch_few_tokens<FewTokens<Format, 2, false>>(queue, job);
  if (queue.features().warpgroups) {
    if (job.tokens <= 64) return launch_sm90_tiles<Format, 64>(queue, job);
    if (takes_largest_tiles(queue, job)) return launch_sm90_tiles<Format, 256>(queue, job);
    return launch_sm90_tiles<Format, 128>(queue, job);
  }
  return job.tokens <= 64 ? launch_sm80_tiles<Format, 64>(queue, job)
                          : launch_sm80_tiles<Format, 128>(queue, job);
}

}  // namespace tessera::cuda
