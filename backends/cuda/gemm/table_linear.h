// Products of activations with table weights: those of any scheme with scales per group.
#pragma once

#include <limits>

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/layout/weight_views.h"

namespace tessera::cuda {

// y[token][first_column + n] = w[n] . x[token] (+ bias[n]). x is q8 or bf16, as weights.int8_activations
// says. For every group of columns d = sum of entry * x - zero point * sum of x; the first sum is an exact
// integer with q8 rows and a float32 sum with bf16 rows. Then acc = fma(scale, d, acc), and with minimums acc
// = fma(minimum, sum of x, acc), over the groups in order, and the result is acc * factor + bias, each
// operation rounded, as in backends/cpu/kernels/table_kernels.h.
struct TableLinearJob {
  TableView weights;
  Global<const float> bias;  // [rows]; null: none
  Rows x;
  uint32_t x_columns = 0;  // of the tensor x, which locates the scale and sums in its rows
  Rows y;
  uint32_t first_column = 0;
  uint32_t tokens = 0;
};

// The jobs of one launch: one, or several of the same format that read the same activations, such as those
// for queries, keys and values. Their panels are numbered consecutively, each job's from a multiple of
// kPanelStep on, so that no block of any kernel has panels of two jobs.
struct TableLinearJobs {
  static constexpr uint32_t kMost = 3;
  static constexpr uint32_t kPanelStep = 8;

  TableLinearJob items[kMost];
  uint32_t first_panel[kMost] = {0, std::numeric_limits<uint32_t>::max(),
                                 std::numeric_limits<uint32_t>::max()};
  uint32_t panels = 0;
  uint32_t count = 0;

  // Returns false and changes nothing if the job cannot share this launch.
  bool add(const TableLinearJob& job) {
    const TableView& own = job.weights;
    if (count == kMost) return false;
    if (count > 0 && !own.same_format(items[0].weights)) return false;
    items[count] = job;
    first_panel[count++] = panels;
    panels += ((own.rows + 15) / 16 + kPanelStep - 1) / kPanelStep * kPanelStep;
    return true;
  }
  void set_tokens(uint32_t tokens) {
    for (TableLinearJob& job : items) job.tokens = tokens;
  }
  // Number of blocks of block_panels panels each.
  uint32_t blocks(uint32_t block_panels) const { return panels / block_panels; }

  // Index of the job that a panel belongs to.
  TESSERA_BOTH uint32_t which(uint32_t panel) const {
    return panel >= first_panel[2] ? 2 : panel >= first_panel[1] ? 1 : 0;
  }
};

// Each queues its launch and returns at once.
void linear_lut2(Queue& queue, const TableLinearJobs& jobs);
void linear_lut3(Queue& queue, const TableLinearJobs& jobs);
void linear_lut4(Queue& queue, const TableLinearJobs& jobs);  // and int4, int4m
void linear_int8(Queue& queue, const TableLinearJobs& jobs);
void linear_int4k(Queue& queue, const TableLinearJobs& jobs);

inline void linear_table(Queue& queue, const TableLinearJobs& jobs) {
  const TableView& weights = jobs.items[0].weights;
  if (weights.nested) return linear_int4k(queue, jobs);
  if (weights.bits == 8) return linear_int8(queue, jobs);
  (weights.bits == 2 ? linear_lut2 : weights.bits == 3 ? linear_lut3 : linear_lut4)(queue, jobs);
}

}  // namespace tessera::cuda
