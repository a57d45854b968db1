// Root-mean-square norm and layer norm, fused with the residual addition before it and the rounding after it.
// One block for each row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"

namespace tessera::cuda {

namespace {

// The mean of a row in two parts: where values are close together, what the first one rounds away counts.
struct RowMean {
  float most = 0;
  float rest = 0;
  TESSERA_DEVICE float subtracted_from(float value) const { return add_rn(add_rn(value, -most), -rest); }
};

template <class Sums>
TESSERA_DEVICE RowMean mean_of(const Sums& sums, uint32_t columns, Shared<float> scratch) {
  RowMean mean;
  float total = 0;
  sums.each([&](uint32_t, const Quad& value) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) total = add_rn(total, value.at[i]);
  });
  mean.most = divide_rn(block_sum(total, scratch), static_cast<float>(columns));
  total = 0;
  sums.each([&](uint32_t quad, const Quad& value) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i)
      if (4 * quad + i < columns) total = add_rn(total, add_rn(value.at[i], -mean.most));
  });
  mean.rest = divide_rn(block_sum(total, scratch), static_cast<float>(columns));
  return mean;
}

// A row less its mean, times its factor and the gain, plus the bias where there is one.
template <bool kHasBias, class Sums, class Gains>
struct Normalized {
  const Sums& sums;
  const Gains& gains;
  float factor;
  RowMean mean;
  const NormJob& job;

  template <class Visit>
  TESSERA_DEVICE void each(const Visit& visit) const {
    sums.each_with(gains, [&](uint32_t quad, const Quad& sum, const Quad& gain) {
      Quad result;
      TESSERA_UNROLL
      for (uint32_t i = 0; i < 4; ++i) {
        const float value = kHasBias ? mean.subtracted_from(sum.at[i]) : sum.at[i];
        result.at[i] = multiply_rn(multiply_rn(value, factor), gain.at[i]);
      }
      if constexpr (kHasBias) {
        const Quad bias = load_quad(job.bias, job.columns, quad);
        TESSERA_UNROLL
        for (uint32_t i = 0; i < 4; ++i) result.at[i] = add_rn(result.at[i], bias.at[i]);
      }
      visit(quad, result);
    });
  }
};

template <bool kHasBias>
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
    for (uint32_t i = 0; i < 4; ++i)
      result.at[i] = add_rn(result.at[i], multiply_rn(job.added_multiplier, added.at[i]));
    return result;
  });
  RowMean row_mean;
  if constexpr (kHasBias) row_mean = mean_of(sums, job.columns, scratch);
  float squares = 0;
  sums.each([&](uint32_t quad, const Quad& value) {
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      // Columns behind the last one are no part of the row.
      float centred = value.at[i];
      if constexpr (kHasBias) centred = 4 * quad + i < job.columns ? row_mean.subtracted_from(centred) : 0.0f;
      squares = multiply_add(centred, centred, squares);
    }
    if (!job.sum.base.null()) store_quad(job.sum.floats(row), job.columns, quad, value);
  });
  squares = block_sum(squares, scratch);
  const float mean = divide_rn(squares, static_cast<float>(job.columns));
  const float factor = divide_rn(1.0f, square_root_rn(add_rn(mean, job.epsilon)));
  store_row(job.type, job.columns, job.y.bytes(row), scratch.as<uint32_t>(),
            Normalized<kHasBias, decltype(sums), decltype(gains)>{sums, gains, factor, row_mean, job});
}

}  // namespace

void norm(Queue& queue, const NormJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads(job.columns), kReduceWords * 4, true},
         job.bias.null() ? &norm_rows<false> : &norm_rows<true>, job);
}

}  // namespace tessera::cuda
