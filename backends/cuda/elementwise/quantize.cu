// Rows of floats to rows of 8-bit codes or of bfloat16. One block for each row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"

namespace tessera::cuda {

namespace {

TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void quantize_rows(QuantizeJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const auto values =
      row_quads<8>(job.columns, [&](uint32_t quad) { return load_quad(x, job.columns, quad); });
  store_row(job.type, job.columns, job.y.bytes(block_x()), Shared<uint32_t>(shared_memory()), values);
}

}  // namespace

void quantize(Queue& queue, const QuantizeJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads(job.columns), kReduceWords * 4, true}, &quantize_rows, job);
}

}  // namespace tessera::cuda
