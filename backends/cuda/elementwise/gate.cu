// silu, gelu or relu of gate, times up where there is one, rounded to the output's type. One block for each
// row.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/store_row.h"

namespace tessera::cuda {

namespace {

// The x of x / (1 + e^-x) whose factor 1 / (1 + e^-x) GELU has: 2 sqrt(2 / pi) (x + 0.044715 x^3).
TESSERA_DEVICE float gelu_argument(float x) {
  const float factor = multiply_add(multiply_rn(x, x), kGeluCubic, kGeluLinear);
  return multiply_rn(x, factor);
}

template <GateFunction kFunction>
TESSERA_DEVICE float passed(float x) {
  if constexpr (kFunction == GateFunction::relu) return x < 0.0f ? 0.0f : x;
  const float argument = kFunction == GateFunction::silu ? x : gelu_argument(x);
  return divide_rn(x, add_rn(1.0f, exponential(-argument)));
}

template <GateFunction kFunction, bool kHasUp>
TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void gate_rows(GateJob job) {
  wait_for_earlier_kernels();
  const Global<float> x = job.x.floats(block_x());
  const auto values = row_quads<8>(job.columns, [&](uint32_t quad) {
    const Quad gate = load_quad(x, job.columns, quad);
    Quad result = gate;
    if constexpr (kHasUp) result = load_quad(x + job.columns, job.columns, quad);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      const float value = passed<kFunction>(gate.at[i]);
      result.at[i] = kHasUp ? multiply_rn(value, result.at[i]) : value;
    }
    return result;
  });
  store_row(job.type, job.columns, job.y.bytes(block_x()), Shared<uint32_t>(shared_memory()), values);
}

}  // namespace

void gate(Queue& queue, const GateJob& job, uint32_t rows) {
  using enum GateFunction;
  auto* kernel = job.has_up ? &gate_rows<silu, true> : &gate_rows<silu, false>;
  if (job.function == gelu_tanh)
    kernel = job.has_up ? &gate_rows<gelu_tanh, true> : &gate_rows<gelu_tanh, false>;
  if (job.function == relu) kernel = job.has_up ? &gate_rows<relu, true> : &gate_rows<relu, false>;
  launch(queue, {rows, 1, 1, row_threads(job.columns), kReduceWords * 4, true}, kernel, job);
}

}  // namespace tessera::cuda
