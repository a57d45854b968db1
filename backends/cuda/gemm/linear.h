// Products of activations with weight matrices, one function for each format. Each is queued and returns at
// once.
#pragma once

#include "backends/cuda/device.h"
#include "backends/cuda/rows.h"
#include "backends/cuda/weights.h"

namespace tessera::cuda {

// y[token][first_column + n] = w[n] . x[token] (+ bias[n]). x is q8 for integer formats, else f32. Integer
// products are exact; then, each rounded, (row scale * activation scale) * float(sum) + bias: as the
// reference backend has it.
struct LinearJob {
  MatrixView weights;
  Global<const float> bias;  // [rows]; null: none
  Rows x;
  uint32_t x_columns = 0;  // of the tensor: where a q8 row keeps its scale
  Rows y;
  uint32_t first_column = 0;
  uint32_t tokens = 0;
};
void linear_w8a8(Queue& queue, const LinearJob& job);
void linear_w4a8(Queue& queue, const LinearJob& job);
void linear_w4a8_g128(Queue& queue, const LinearJob& job);
void linear_float(Queue& queue, const LinearJob& job);  // f32, f16 and bf16
void linear_f16(Queue& queue, const LinearJob& job);
void linear_bf16(Queue& queue, const LinearJob& job);

}  // namespace tessera::cuda
