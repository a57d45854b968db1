// Root-mean-square norm with everything that belongs to it: the residual addition before, the rounding
// after. One block for each row.
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"
#include "backends/cuda/launch.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void norm_rows(NormJob job) {
  follow_earlier_kernels();
  const Shared<float> scratch(shared_memory());
  const uint32_t row = block_x();
  const uint32_t from = job.selected.null() ? row : job.selected[row];
  const Global<float> x = job.x.floats(from);
  const Global<float> added = job.added.base.null() ? x : job.added.floats(from);
  const bool adds = !job.added.base.null();
  const auto input = [&](uint32_t i) { return adds ? add_rn(x[i], added[i]) : x[i]; };
  float squares = 0;
  for (uint32_t i = thread_index(); i < job.columns; i += kThreads) {
    const float value = input(i);
    squares = multiply_add(value, value, squares);
    if (!job.sum.base.null()) job.sum.floats(row).store(i, value);
  }
  squares = block_sum(squares, scratch);
  const float mean = divide_rn(squares, static_cast<float>(job.columns));
  const float factor = divide_rn(1.0f, square_root_rn(add_rn(mean, job.epsilon)));
  const auto value = [&](uint32_t i) { return multiply_rn(multiply_rn(input(i), factor), job.gain[i]); };
  store_row(job.type, job.columns, job.y.bytes(row), scratch.as<uint32_t>(), value);
}

}  // namespace

void norm(Queue& queue, const NormJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, kThreads, kReduceWords * 4, true}, &norm_rows, job);
}

}  // namespace tessera::cuda
