// silu(gate) * up, rounded to the output's type. One block for each row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"

namespace tessera::cuda {

namespace {

TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void gate_rows(GateJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const auto values = row_quads<8>(job.columns, [&](uint32_t quad) {
    const Quad gate = load_quad(x, job.columns, quad);
    Quad result = load_quad(x + job.columns, job.columns, quad);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const float silu = divide_rn(gate.at[i], add_rn(1.0f, exponential(-gate.at[i])));
      result.at[i] = multiply_rn(silu, result.at[i]);
    }
    return result;
  });
  store_row(job.type, job.columns, job.y.bytes(block_x()), Shared<uint32_t>(shared_memory()), values);
}

}  // namespace

void gate(Queue& queue, const GateJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads(job.columns), kReduceWords * 4, true}, &gate_rows, job);
}

}  // namespace tessera::cuda
