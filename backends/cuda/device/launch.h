// Launches a kernel with one argument on a queue.
#pragma once

#include <type_traits>

#include "backends/cuda/device/device.h"

#if !defined(TESSERA_HAS_INSTRUCTIONS)
#error "only kernel sources launch kernels"
#endif
#if defined(TESSERA_CUDA_EMULATED)
#include "backends/cuda/emulator/work_queue.h"
#endif

namespace tessera::cuda {

struct LaunchShape {
  uint32_t grid_x = 1;
  uint32_t grid_y = 1;
  uint32_t grid_z = 1;
  uint32_t threads = 32;    // of a block
  size_t shared_bytes = 0;  // dynamic, at most Queue::facts().shared_bytes
  // The kernel may begin while the one before it still runs (programmatic dependent launch, sm_90). Each of
  // its threads must call griddepcontrol_wait; before that it may read only sealed memory and write nothing.
  bool early = false;
};

// First call of an early kernel that can do nothing before its inputs are complete.
TESSERA_DEVICE void wait_for_earlier_kernels() {
  griddepcontrol_launch_dependents();
  griddepcontrol_wait();
}

// Queues kernel(job). Does nothing when the grid is empty. queue.finish() returns errors.
template <class Job>
void launch(Queue& queue, const LaunchShape& shape, void (*kernel)(Job),
            const std::type_identity_t<Job>& job) {
  if (shape.grid_x == 0 || shape.grid_y == 0 || shape.grid_z == 0) return;
#if defined(__CUDACC__)
  constexpr size_t kDefaultSharedBytes = size_t{48} << 10;  // more needs the attribute below
  if (shape.early) {
    // The same split between L1 cache and shared memory for all kernels: a block that needs another split may
    // have to wait until the multiprocessor is empty.
    const cudaError_t refused = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                     cudaSharedmemCarveoutMaxShared);
    if (refused != cudaSuccess) return queue.remember_error(cudaGetErrorString(refused));
  }
  if (shape.shared_bytes > kDefaultSharedBytes) {
    // The maximum, never less: a recorded launch that needs more may still be replayed.
    const cudaError_t refused = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(queue.facts().shared_bytes));
    if (refused != cudaSuccess) return queue.remember_error(cudaGetErrorString(refused));
  }
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(shape.grid_x, shape.grid_y, shape.grid_z);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(queue.stream());
  config.attrs = &early;
  // Code for targets before sm_90 does not wait.
  config.numAttrs = shape.early && queue.follows_kernel() && queue.features().bulk_copies ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, job);
  if (error == cudaSuccess) {
    queue.remember_kernel();
  } else {
    queue.remember_error(cudaGetErrorString(error));
    (void)cudaGetLastError();
  }
#else
  emulator::submit(queue.stream(), [&queue, shape, kernel, job] {
    try {
      emulator::run_grid(
          {shape.grid_x, shape.grid_y, shape.grid_z, shape.threads, shape.shared_bytes, shape.early},
          [&] { kernel(job); });
    } catch (const emulator::Fault& fault) {
      queue.remember_error(fault.what());
    }
  });
#endif
}

}  // namespace tessera::cuda
