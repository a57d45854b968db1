// The gain of a norm in a rotated model: one block for each row, which is rotated back and forth in place.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kTileFloats = 4096;  // of shared memory, at least as many as the factor has rows

// The Hadamard transforms of the row's blocks, each scaled.
TESSERA_DEVICE void transform_blocks(Global<float> y, uint32_t columns, uint32_t block) {
  for (uint32_t step = 1; step < block; step *= 2) {
    for (uint32_t pair = thread_index(); pair < columns / 2; pair += kThreads) {
      const uint32_t low = pair / step * 2 * step + pair % step;
      const float a = y[low];
      const float b = y[low + step];
      y.store(low, add_rn(a, b));
      y.store(low + step, add_rn(a, -b));
    }
    block_barrier();
  }
  const float scale = divide_rn(1.0f, square_root_rn(static_cast<float>(block)));
  for (uint32_t i = thread_index(); i < columns; i += kThreads) y.store(i, multiply_rn(y[i], scale));
  block_barrier();
}

// The product with the factor, or with its transpose, over the blocks: a few columns of all blocks at a time.
TESSERA_DEVICE void multiply_factor(const RotatedGainJob& job, Global<float> y, bool transposed,
                                    Shared<float> tile) {
  const uint32_t order = job.order;
  if (order == 1) return;
  const uint32_t block = job.columns / order;
  const uint32_t width = kTileFloats / order;
  for (uint32_t first = 0; first < block; first += width) {
    const uint32_t count = block - first < width ? block - first : width;
    for (uint32_t i = thread_index(); i < order * count; i += kThreads)
      tile.store(i, y[i / count * block + first + i % count]);
    block_barrier();
    for (uint32_t i = thread_index(); i < order * count; i += kThreads) {
      const uint32_t to = i / count;
      float sum = 0;
      for (uint32_t from = 0; from < order; ++from) {
        const float weight = job.factor[transposed ? to * order + from : from * order + to];
        sum = add_rn(sum, multiply_rn(weight, tile[from * count + i % count]));
      }
      y.store(to * block + first + i % count, sum);
    }
    block_barrier();
  }
}

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void gain_rows(RotatedGainJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const Global<float> y = job.y.floats(block_x());
  const Shared<float> tile(shared_memory());
  const uint32_t block = job.columns / job.order;
  for (uint32_t i = thread_index(); i < job.columns; i += kThreads) y.store(i, x[i]);
  block_barrier();
  transform_blocks(y, job.columns, block);
  multiply_factor(job, y, true, tile);
  for (uint32_t i = thread_index(); i < job.columns; i += kThreads) {
    const float back = multiply_rn(y[i], job.signs[i]);
    y.store(i, multiply_rn(multiply_rn(back, job.gain[i]), job.signs[i]));
  }
  block_barrier();
  transform_blocks(y, job.columns, block);
  multiply_factor(job, y, false, tile);
}

}  // namespace

void rotated_gain(Queue& queue, const RotatedGainJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, kThreads, kTileFloats * sizeof(float), true}, &gain_rows, job);
}

}  // namespace tessera::cuda
