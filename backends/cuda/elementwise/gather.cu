// Columns of rows of floats in another order, rounded to the output's type. One block for each row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"

namespace tessera::cuda {

namespace {

TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void gather_rows(GatherJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const auto values = row_quads<8>(job.columns, [&](uint32_t quad) {
    Quad result{};
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      if (4 * quad + i < job.columns) result.at[i] = x[job.order[4 * quad + i]];
    }
    return result;
  });
  store_row(job.type, job.columns, job.y.bytes(block_x()), Shared<uint32_t>(shared_memory()), values);
}

}  // namespace

void gather(Queue& queue, const GatherJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads(job.columns), kReduceWords * 4, true}, &gather_rows, job);
}

}  // namespace tessera::cuda
