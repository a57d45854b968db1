// Starts the chosen kernel of a product with 16-bit weights; each format's source file instantiates it.
#pragma once

#include "backends/cuda/gemm/choice/half_choice.h"
#include "backends/cuda/gemm/kernels/sm80_half_few_tokens.h"
#include "backends/cuda/gemm/kernels/sm80_half_tiles.h"

namespace tessera::cuda::halves {

template <class Format>
void launch_half(Queue& queue, const LinearJob& job) {
  if (job.tokens == 0 || job.weights.rows == 0) return;
  const HalfChoices device{queue.facts().processors, queue.facts().shared_bytes};
  switch (choose_half_kernel(device, job.weights.rows, job.tokens)) {
    case HalfKernel::few8:
      return launch_few<Few<Format, 1, false>>(queue, job);
    case HalfKernel::few16:
      return launch_few<Few<Format, 2, false>>(queue, job);
    case HalfKernel::few8_large:
      return launch_few<Few<Format, 1, true>>(queue, job);
    case HalfKernel::few16_large:
      return launch_few<Few<Format, 2, true>>(queue, job);
    case HalfKernel::tiles128x128:
      return launch_tiles<Tile<Format, 128, 128>>(queue, job);
    case HalfKernel::tiles128x64:
      return launch_tiles<Tile<Format, 128, 64>>(queue, job);
    case HalfKernel::tiles64x64:
      return launch_tiles<Tile<Format, 64, 64>>(queue, job);
  }
}

}  // namespace tessera::cuda::halves
