// Rows of floats to rows of 8-bit codes or of bfloat16. One block for each row.
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"
#include "backends/cuda/launch.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void quantize_rows(QuantizeJob job) {
  follow_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  store_row(job.type, job.columns, job.y.bytes(block_x()), Shared<uint32_t>(shared_memory()),
            [&](uint32_t i) { return x[i]; });
}

}  // namespace

void quantize(Queue& queue, const QuantizeJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, kThreads, kReduceWords * 4, true}, &quantize_rows, job);
}

}  // namespace tessera::cuda
