// f32 weights with float32 activations and sums: a warp computes one row for up to 8 tokens. The order of the
// additions depends only on the number of columns.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/float_linear.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kWarps = 8;
constexpr uint32_t kTokens = 8;

// Sums 8 values over the warp at once: in each of the first three steps a lane keeps half of its values and
// exchanges the other half with another lane. Lane l returns the sum of value l / 4. All values are added in
// the same order.
TESSERA_DEVICE float transposed_sum(float (&values)[kTokens]) {
  uint32_t mask = 16;
  for (uint32_t kept = kTokens / 2; kept > 0; kept /= 2) {
    const bool upper = (lane_index() & mask) != 0;
    for (uint32_t i = 0; i < kTokens / 2; ++i) {
      if (i >= kept) break;
      const float send = upper ? values[i] : values[i + kept];
      const float keep = upper ? values[i + kept] : values[i];
      values[i] = add_rn(keep, bits_float(shuffle_xor(float_bits(send), mask)));
    }
    mask /= 2;
  }
  float sum = values[0];
  for (; mask > 0; mask /= 2) sum = add_rn(sum, bits_float(shuffle_xor(float_bits(sum), mask)));
  return sum;
}

TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kWarps) void linear_float_rows(LinearJob job) {
  wait_for_earlier_kernels();
  const uint32_t row = block_x() * kWarps + warp_index();
  if (row >= job.weights.rows) return;
  const uint32_t first = block_y() * kTokens;
  const uint32_t tokens = job.tokens - first < kTokens ? job.tokens - first : kTokens;
  const Global<const float> weights =
      job.weights.codes.as<const float>() + row * layout::float_row_elements(job.weights.columns);
  float sums[kTokens] = {};
  for (uint32_t k = lane_index(); k < job.weights.columns; k += 32) {
    const float weight = weights[k];
    for (uint32_t t = 0; t < kTokens; ++t) {
      if (t < tokens) sums[t] = multiply_add(weight, job.x.floats(first + t)[k], sums[t]);
    }
  }
  float result = transposed_sum(sums);
  const uint32_t token = lane_index() / 4;
  if (lane_index() % 4 != 0 || token >= tokens) return;
  if (!job.bias.null()) result = add_rn(result, job.bias[row]);
  job.y.floats(first + token).store(job.first_column + row, result);
}

}  // namespace

void linear_f32(Queue& queue, const LinearJob& job) {
  launch(queue,
         {(job.weights.rows + kWarps - 1) / kWarps, (job.tokens + kTokens - 1) / kTokens, 1, 32 * kWarps, 0,
          true},
         &linear_float_rows, job);
}

}  // namespace tessera::cuda
