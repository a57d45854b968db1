// Products of float32 activations with f32, f16 and bf16 matrices.
#pragma once

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/layout/weight_views.h"

namespace tessera::cuda {

// y[token][first_column + n] = w[n] . x[token] (+ bias[n]), x f32. Each function queues its launch and
// returns at once.
struct LinearJob {
  MatrixView weights;
  Global<const float> bias;  // [rows]; null: none
  Rows x;
  Rows y;
  uint32_t first_column = 0;
  uint32_t tokens = 0;
};
void linear_f32(Queue& queue, const LinearJob& job);
void linear_f16(Queue& queue, const LinearJob& job);
void linear_bf16(Queue& queue, const LinearJob& job);

// The one for the weights' format.
inline void linear_float(Queue& queue, const LinearJob& job) {
  (job.weights.format == WeightFormat::f16    ? linear_f16
   : job.weights.format == WeightFormat::bf16 ? linear_bf16
                                              : linear_f32)(queue, job);
}

}  // namespace tessera::cuda
