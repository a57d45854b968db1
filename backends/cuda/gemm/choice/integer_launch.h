// Starts the chosen kernel of an integer product; each format's source file instantiates it.
#pragma once

#include "backends/cuda/gemm/choice/integer_choice.h"
#include "backends/cuda/gemm/kernels/sm80_int8_few_tokens.h"
#include "backends/cuda/gemm/kernels/sm80_int8_tiles.h"
#include "backends/cuda/gemm/kernels/sm90_int8_tiles.h"

namespace tessera::cuda {

static_assert(kIntegerTilePanels == kTilePanels);

template <class Format>
void launch_integer(Queue& queue, const IntegerJob& job) {
  if (job.tokens == 0) return;
  const IntegerChoices device{queue.facts().processors, queue.facts().shared_bytes,
                              queue.features().bulk_copies, queue.features().warpgroups};
  switch (choose_integer_kernel(device, job.panels, job.tokens)) {
    case IntegerKernel::few8:
      return launch_few_tokens<FewTokens<Format, 1, false>>(queue, job);
    case IntegerKernel::few16:
      return launch_few_tokens<FewTokens<Format, 2, false>>(queue, job);
    case IntegerKernel::few8_bulk:
      return launch_few_tokens<FewTokens<Format, 1, true>>(queue, job);
    case IntegerKernel::few16_bulk:
      return launch_few_tokens<FewTokens<Format, 2, true>>(queue, job);
    case IntegerKernel::sm80_tiles64:
      return launch_sm80_tiles<Format, 64>(queue, job);
    case IntegerKernel::sm80_tiles128:
      return launch_sm80_tiles<Format, 128>(queue, job);
    case IntegerKernel::sm90_tiles64:
      return launch_sm90_tiles<Format, 64>(queue, job);
    case IntegerKernel::sm90_tiles128:
      return launch_sm90_tiles<Format, 128>(queue, job);
    case IntegerKernel::sm90_tiles256:
      return launch_sm90_tiles<Format, 256>(queue, job);
  }
}

}  // namespace tessera::cuda
