// Rotary position embedding: the table of cosines and sines for the rows of a batch, and the rotation. One
// block for each row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kTableThreads = 64;
constexpr uint32_t kThreads = 256;

TESSERA_KERNEL TESSERA_BLOCK_OF(kTableThreads) void fill_rope_table(RopeTableJob job) {
  wait_for_earlier_kernels();
  const size_t first = size_t{block_x()} * job.half;
  const auto position = static_cast<double>(job.positions[block_x()]);
  for (uint32_t i = thread_index(); i < job.half; i += kTableThreads) {
    const Rotation angle = rotation(position * job.inverse_frequency[i]);
    job.cosines.store(first + i, static_cast<float>(angle.cosine));
    job.sines.store(first + i, static_cast<float>(angle.sine));
  }
}

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void rotate_rows(RopeJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const Global<float> y = job.y.floats(block_x());
  const size_t table = size_t{block_x()} * job.half;
  // Every thread reads and writes its own pairs only, so y may be x.
  for (uint32_t pair = thread_index(); pair < job.heads * job.half; pair += kThreads) {
    const uint32_t i = pair % job.half;
    const uint32_t first = pair / job.half * job.head_dim + i;
    const uint32_t second = first + job.half;
    const float cosine = job.cosines[table + i];
    const float sine = job.sines[table + i];
    const float a = x[first];
    const float b = x[second];
    y.store(first, multiply_add(a, cosine, -multiply_rn(b, sine)));
    y.store(second, multiply_add(b, cosine, multiply_rn(a, sine)));
  }
  if (x.address() == y.address()) return;
  for (uint32_t i = thread_index(); i < job.columns; i += kThreads) {
    const bool rotated = i < job.heads * job.head_dim && i % job.head_dim < 2 * job.half;
    if (!rotated) y.store(i, x[i]);
  }
}

}  // namespace

void rope_table(Queue& queue, const RopeTableJob& job, uint32_t rows) {
  if (job.half > 0) launch(queue, {rows, 1, 1, kTableThreads, 0, true}, &fill_rope_table, job);
}

void rope(Queue& queue, const RopeJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, kThreads, 0, true}, &rotate_rows, job);
}

}  // namespace tessera::cuda
