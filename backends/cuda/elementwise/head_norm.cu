// Norms of query and key heads: one block for each row, one warp for each head at a time.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/block_reduce.h"
#include "backends/cuda/elementwise/row_kernels.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void norm_heads(HeadNormJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const Global<float> y = job.y.floats(block_x());
  const uint32_t heads = job.query_heads + job.kv_heads;
  for (uint32_t head = warp_index(); head < heads; head += kThreads / 32) {
    const Global<const float> gain = head < job.query_heads ? job.query_gain : job.key_gain;
    const uint32_t first = head * job.head_dim;
    float squares = 0;
    for (uint32_t i = lane_index(); i < job.head_dim; i += 32) {
      const float value = x[first + i];
      squares = multiply_add(value, value, squares);
    }
    const float mean = divide_rn(warp_sum(squares), static_cast<float>(job.head_dim));
    const float factor = divide_rn(1.0f, square_root_rn(add_rn(mean, job.epsilon)));
    // Every lane reads and writes its own elements only, so y may be x.
    for (uint32_t i = lane_index(); i < job.head_dim; i += 32)
      y.store(first + i, multiply_rn(multiply_rn(x[first + i], factor), gain[i]));
  }
  if (x.address() == y.address()) return;
  for (uint32_t i = heads * job.head_dim + thread_index(); i < job.columns; i += kThreads) y.store(i, x[i]);
}

}  // namespace

void head_norm(Queue& queue, const HeadNormJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, kThreads, 0, true}, &norm_heads, job);
}

}  // namespace tessera::cuda
