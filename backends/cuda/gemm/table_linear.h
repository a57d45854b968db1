// Products of activations with weights of table schemes, for any of them. Queued; returns at once.
#pragma once

#include "backends/cuda/device.h"
#include "backends/cuda/rows.h"
#include "backends/cuda/weights.h"

namespace tessera::cuda {

// y[token][first_column + n] = w[n] . x[token] (+ bias[n]). x is q8 or bf16, as the weights ask. For every
// group of columns d = sum of entry * x - zero point * sum of x, an exact integer before the zero point with
// q8 rows, a float32 sum with bf16 rows; then acc = fma(scale, d, acc) over the groups in order, and the
// result is acc * factor + bias, each operation rounded: as backends/cpu/table_kernels.h has it.
struct TableLinearJob {
  TableView weights;
  Global<const float> bias;  // [rows]; null: none
  Rows x;
  uint32_t x_columns = 0;  // of the tensor: where a row keeps its scale and sums
  Rows y;
  uint32_t first_column = 0;
  uint32_t tokens = 0;
};
void linear_lut2(Queue& queue, const TableLinearJob& job);
void linear_lut3(Queue& queue, const TableLinearJob& job);
void linear_lut4(Queue& queue, const TableLinearJob& job);  // and int4

inline void linear_table(Queue& queue, const TableLinearJob& job) {
  (job.weights.bits == 2 ? linear_lut2 : job.weights.bits == 3 ? linear_lut3 : linear_lut4)(queue, job);
}

}  // namespace tessera::cuda
