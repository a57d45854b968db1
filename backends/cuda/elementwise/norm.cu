// Root-mean-square norm, fused with the residual addition before it and the rounding after it. One block for
// each row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"

namespace tessera::cuda {

namespace {

// A row times its factor and the gain.
template <class Sums, class Gains>
struct Normalized {
  const Sums& sums;
  const Gains& gains;
  float factor;

  template <class Visit>
  TESSERA_DEVICE void each(const Visit& visit) const {
    sums.each_with(gains, [&](uint32_t quad, const Quad& sum, const Quad& gain) {
      Quad result;
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 4; ++i) result.at[i] = multiply_rn(multiply_rn(sum.at[i], factor), gain.at[i]);
      visit(quad, result);
    });
  }
};

TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void norm_rows(NormJob job) {
  griddepcontrol_launch_dependents();
  const auto gains =
      row_quads<4>(job.columns, [&](uint32_t quad) { return load_quad(job.gain, job.columns, quad); });
  griddepcontrol_wait();
  const Shared<float> scratch(shared_memory());
  const uint32_t row = block_x();
  const uint32_t from = job.selected.null() ? row : job.selected[row];
  const Global<float> x = job.x.floats(from);
  const auto sums = row_quads<4>(job.columns, [&](uint32_t quad) {
    Quad result = load_quad(x, job.columns, quad);
    if (job.added.base.null()) return result;
    const Quad added = load_quad(job.added.floats(from), job.columns, quad);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) result.at[i] = add_rn(result.at[i], added.at[i]);
    return result;
  });
  float squares = 0;
  sums.each([&](uint32_t quad, const Quad& value) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) squares = multiply_add(value.at[i], value.at[i], squares);
    if (!job.sum.base.null()) store_quad(job.sum.floats(row), job.columns, quad, value);
  });
  squares = block_sum(squares, scratch);
  const float mean = divide_rn(squares, static_cast<float>(job.columns));
  const float factor = divide_rn(1.0f, square_root_rn(add_rn(mean, job.epsilon)));
  store_row(job.type, job.columns, job.y.bytes(row), scratch.as<uint32_t>(),
            Normalized<decltype(sums), decltype(gains)>{sums, gains, factor});
}

}  // namespace

void norm(Queue& queue, const NormJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads(job.columns), kReduceWords * 4, true}, &norm_rows, job);
}

}  // namespace tessera::cuda
