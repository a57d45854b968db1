// What a launch of an integer product is given: one matrix, or several of the same format and width that read
// the same activations, such as those of queries, keys and values. Their panels are numbered through.
#pragma once

#include <limits>

#include "backends/cuda/device/device.h"
#include "backends/cuda/device/kernel_instructions.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/layout/weight_views.h"

namespace tessera::cuda {

inline constexpr uint32_t kMostMatrices = 3;

struct PlacedMatrix {
  uint32_t rows = 0;
  uint32_t first_panel = std::numeric_limits<uint32_t>::max();  // where there is no matrix: never reached
  uint32_t first_column = 0;                                    // of its results in y
  Global<const std::byte> codes;
  Global<const float> scales;
  Global<const uint8_t> zeros;
  Global<const float> bias;  // [rows]; null: none
};

// y[token][first_column + n] = w[n] . x[token] (+ bias[n]) of each matrix, x q8. Sums are exact; then, each
// rounded, (row scale * activation scale) * float(sum) + bias: as the reference backend has it.
struct IntegerJob {
  WeightFormat format = WeightFormat::w8a8;
  uint32_t columns = 0;  // of every matrix, as stored
  size_t panel_bytes = 0;
  uint32_t panels = 0;  // of all matrices
  uint32_t matrix_count = 0;
  PlacedMatrix matrices[kMostMatrices];
  Rows x;
  uint32_t x_columns = 0;  // of the tensor: where a q8 row keeps its scale
  Rows y;
  uint32_t tokens = 0;

  // Adds a matrix of an integer format. False, and nothing done, where it belongs to another launch.
  bool add(const MatrixView& matrix, Global<const float> bias, uint32_t first_column) {
    if (matrix_count == 0) {
      format = matrix.format;
      columns = matrix.columns;
      panel_bytes = matrix.panel_bytes;
    } else if (matrix_count == kMostMatrices || matrix.format != format || matrix.columns != columns) {
      return false;
    }
    matrices[matrix_count++] = {matrix.rows,   panels,       first_column, matrix.codes,
                                matrix.scales, matrix.zeros, bias};
    panels += (matrix.rows + 15) / 16;
    return true;
  }

  void forget_matrices() {
    panels = matrix_count = 0;
    for (PlacedMatrix& matrix : matrices) matrix = {};
  }

  // The matrix of a panel; of panels beyond the last one, the last matrix, which has no such rows.
  TESSERA_BOTH const PlacedMatrix& matrix_of(uint32_t panel) const {
    return matrices[panel >= matrices[2].first_panel ? 2 : panel >= matrices[1].first_panel ? 1 : 0];
  }
  TESSERA_BOTH Global<const std::byte> codes_of(uint32_t panel) const {
    const PlacedMatrix& matrix = matrix_of(panel);
    return matrix.codes + (panel - matrix.first_panel) * panel_bytes;
  }
  // How many of `count` panels from this one on are of the same matrix.
  TESSERA_BOTH uint32_t panels_of_one(uint32_t panel, uint32_t count) const {
    const PlacedMatrix& matrix = matrix_of(panel);
    const uint32_t left = matrix.first_panel + (matrix.rows + 15) / 16 - panel;
    return left < count ? left : count;
  }
};

// Each is queued and returns at once.
void linear_w8a8(Queue& queue, const IntegerJob& job);
void linear_w4a8(Queue& queue, const IntegerJob& job);
void linear_w4a8_g128(Queue& queue, const IntegerJob& job);

inline void linear_integer(Queue& queue, const IntegerJob& job) {
  (job.format == WeightFormat::w8a8   ? linear_w8a8
   : job.format == WeightFormat::w4a8 ? linear_w4a8
                                      : linear_w4a8_g128)(queue, job);
}

}  // namespace tessera::cuda
