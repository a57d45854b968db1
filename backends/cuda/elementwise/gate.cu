// silu(gate) * up, rounded to what the next layer reads. One block for each row.
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"
#include "backends/cuda/launch.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void gate_rows(GateJob job) {
  follow_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const auto value = [&](uint32_t i) {
    const float gate = x[i];
    const float silu = divide_rn(gate, add_rn(1.0f, exponential(-gate)));
    return multiply_rn(silu, x[job.columns + i]);
  };
  store_row(job.type, job.columns, job.y.bytes(block_x()), Shared<uint32_t>(shared_memory()), value);
}

}  // namespace

void gate(Queue& queue, const GateJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, kThreads, kReduceWords * 4, true}, &gate_rows, job);
}

}  // namespace tessera::cuda
