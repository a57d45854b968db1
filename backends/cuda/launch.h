// Starts a kernel of one argument on a queue.
#pragma once

#include <type_traits>

#include "backends/cuda/device.h"

#if !defined(TESSERA_HAS_INSTRUCTIONS)
#error "only kernel sources launch kernels"
#endif
#if defined(TESSERA_SIMT)
#include "tests/simt/work_queue.h"
#endif

namespace tessera::cuda {

struct LaunchShape {
  uint32_t grid_x = 1;
  uint32_t grid_y = 1;
  uint32_t grid_z = 1;
  uint32_t threads = 32;    // of a block
  size_t shared_bytes = 0;  // at most the facts' shared_bytes
};

// Does nothing when the grid is empty. Errors appear in queue.finish().
template <class Job>
void launch(Queue& queue, const LaunchShape& shape, void (*kernel)(Job),
            const std::type_identity_t<Job>& job) {
  if (shape.grid_x == 0 || shape.grid_y == 0 || shape.grid_z == 0) return;
#if defined(__CUDACC__)
  constexpr size_t kWithoutAsking = size_t{48} << 10;
  if (shape.shared_bytes > kWithoutAsking) {
    // All there is, never less: what was recorded with more may still be replayed.
    const cudaError_t refused = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(queue.facts().shared_bytes));
    if (refused != cudaSuccess) return queue.note(cudaGetErrorString(refused));
  }
  kernel<<<dim3(shape.grid_x, shape.grid_y, shape.grid_z), dim3(shape.threads), shape.shared_bytes,
           static_cast<cudaStream_t>(queue.stream())>>>(job);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) queue.note(cudaGetErrorString(error));
#else
  simt::submit(queue.stream(), [&queue, shape, kernel, job] {
    try {
      simt::run_grid({shape.grid_x, shape.grid_y, shape.grid_z, shape.threads, shape.shared_bytes},
                     [&] { kernel(job); });
    } catch (const simt::Fault& fault) {
      queue.note(fault.what());
    }
  });
#endif
}

}  // namespace tessera::cuda
