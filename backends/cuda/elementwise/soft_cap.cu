// cap * tanh(x / cap). Blocks share the columns of a row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/soft_capped.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kBlockColumns = 4 * kThreads;

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void cap_rows(SoftCapJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const Global<float> y = job.y.floats(block_x());
  const uint32_t begin = block_y() * kBlockColumns;
  const uint32_t end = begin + kBlockColumns < job.columns ? begin + kBlockColumns : job.columns;
  for (uint32_t i = begin + thread_index(); i < end; i += kThreads) y.store(i, soft_capped(x[i], job.cap));
}

}  // namespace

void soft_cap(Queue& queue, const SoftCapJob& job, uint32_t rows) {
  launch(queue, {rows, (job.columns + kBlockColumns - 1) / kBlockColumns, 1, kThreads, 0, true}, &cap_rows,
         job);
}

}  // namespace tessera::cuda
