// Products of 8-bit activations with integer weights. One launch computes the product with one matrix, or
// with several of the same format and width that read the same activations, such as those of queries, keys
// and values; their panels are numbered consecutively.
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
  uint32_t first_panel = std::numeric_limits<uint32_t>::max();  // default: there is no such matrix
  uint32_t first_column = 0;                                    // column of y that its results begin at
  Global<const std::byte> codes;
  Global<const float> scales;
  Global<const uint8_t> zeros;
  Global<const float> bias;  // [rows]; null: none
};

// y[token][first_column + n] = w[n] . x[token] (+ bias[n]) of each matrix, x q8. Sums are exact; the result
// is (row scale * activation scale) * float(sum) + bias with each operation rounded, as in the reference
// backend.
struct IntegerJob {
  WeightFormat format = WeightFormat::w8a8;
  uint32_t columns = 0;  // of every matrix, padded as stored
  size_t panel_bytes = 0;
  uint32_t panels = 0;  // of all matrices
  uint32_t matrix_count = 0;
  PlacedMatrix matrices[kMostMatrices];
  Rows x;
  uint32_t x_columns = 0;  // of the tensor x, which locates the scale in its q8 rows
  Rows y;
  uint32_t tokens = 0;

  // Adds a matrix of an integer format. Returns false and changes nothing if it cannot share this launch.
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

  // The matrix that a panel belongs to. For panels beyond the last one it is the last matrix.
  TESSERA_BOTH const PlacedMatrix& matrix_of(uint32_t panel) const {
    return matrices[panel >= matrices[2].first_panel ? 2 : panel >= matrices[1].first_panel ? 1 : 0];
  }
  TESSERA_BOTH Global<const std::byte> codes_of(uint32_t panel) const {
    const PlacedMatrix& matrix = matrix_of(panel);
    return matrix.codes + (panel - matrix.first_panel) * panel_bytes;
  }
  // How many of the `count` panels from `panel` on belong to the same matrix.
  TESSERA_BOTH uint32_t panels_of_one(uint32_t panel, uint32_t count) const {
    const PlacedMatrix& matrix = matrix_of(panel);
    const uint32_t left = matrix.first_panel + (matrix.rows + 15) / 16 - panel;
    return left < count ? left : count;
  }
};

// Each queues its launch and returns at once.
void linear_w8a8(Queue& queue, const IntegerJob& job);
void linear_w4a8(Queue& queue, const IntegerJob& job);
void linear_w4a8_g128(Queue& queue, const IntegerJob& job);

inline void linear_integer(Queue& queue, const IntegerJob& job) {
  (job.format == WeightFormat::w8a8   ? linear_w8a8
   : job.format == WeightFormat::w4a8 ? linear_w4a8
                                      : linear_w4a8_g128)(queue, job);
}

}  // namespace tessera::cuda
