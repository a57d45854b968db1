// Products of activations with weights of table schemes, for any of them. Queued; returns at once.
#pragma once

#include <limits>

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/layout/weight_views.h"

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

// One job, or several of one format that read the same activations, such as those for queries, keys and
// values: one launch. Their panels are numbered through, from multiples of kPanelStep on, so that no block of
// any kernel has panels of two of them.
struct TableLinearJobs {
  static constexpr uint32_t kMost = 3;
  static constexpr uint32_t kPanelStep = 8;

  TableLinearJob items[kMost];
  uint32_t first_panel[kMost] = {0, std::numeric_limits<uint32_t>::max(),
                                 std::numeric_limits<uint32_t>::max()};
  uint32_t panels = 0;
  uint32_t count = 0;

  // False, and nothing done, where the job belongs to another launch.
  bool add(const TableLinearJob& job) {
    const TableView& first = items[0].weights;
    const TableView& own = job.weights;
    if (count == kMost) return false;
    if (count > 0 &&
        (own.bits != first.bits || own.group != first.group || own.zero_points != first.zero_points ||
         own.columns != first.columns || own.int8_activations != first.int8_activations))
      return false;
    items[count] = job;
    first_panel[count++] = panels;
    panels += ((own.rows + 15) / 16 + kPanelStep - 1) / kPanelStep * kPanelStep;
    return true;
  }
  void set_tokens(uint32_t tokens) {
    for (TableLinearJob& job : items) job.tokens = tokens;
  }
  // Blocks that have so many panels each.
  uint32_t blocks(uint32_t block_panels) const { return panels / block_panels; }

  // Whose the panel is.
  TESSERA_BOTH uint32_t which(uint32_t panel) const {
    return panel >= first_panel[2] ? 2 : panel >= first_panel[1] ? 1 : 0;
  }
};
void linear_lut2(Queue& queue, const TableLinearJobs& jobs);
void linear_lut3(Queue& queue, const TableLinearJobs& jobs);
void linear_lut4(Queue& queue, const TableLinearJobs& jobs);  // and int4

inline void linear_table(Queue& queue, const TableLinearJobs& jobs) {
  const uint32_t bits = jobs.items[0].weights.bits;
  (bits == 2 ? linear_lut2 : bits == 3 ? linear_lut3 : linear_lut4)(queue, jobs);
}

}  // namespace tessera::cuda
