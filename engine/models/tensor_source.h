// Where a tensor of a model lies in a checkpoint: whole or as some rows of a fused matrix, in its own order
// of rows or in another. Fused matrices and other orders are matters of importing, not of computing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tessera {

struct TensorSource {
  std::string name;        // of the checkpoint's tensor
  uint64_t first_row = 0;  // of a matrix, or entry of a vector, at which this tensor begins there
  uint64_t all_rows = 0;   // that the checkpoint's tensor has; 0: as many as this tensor

  // Rotary embeddings may be stored for pairs of neighbours (2i, 2i + 1). Rows are then read so that pairs
  // lie half the rotated rows apart, as ops have them: of the first rotated_rows rows of every head of
  // head_rows rows, row i is the stored row 2i and row i + rotated_rows / 2 the stored row 2i + 1; other rows
  // stay. 0: rows are in order already. Otherwise rotated_rows is even, not 0 and at most head_rows.
  uint64_t head_rows = 0;
  uint64_t rotated_rows = 0;

  // (value + addend) * multiplier is what is read, in f32.
  float addend = 0.0f;
  float multiplier = 1.0f;

  // The row of the checkpoint's tensor that row `row` of this tensor is read from.
  uint64_t stored_row(uint64_t row) const {
    if (head_rows != 0) {
      const uint64_t in_head = row % head_rows;
      const uint64_t half = rotated_rows / 2;
      if (in_head < half)
        row += in_head;
      else if (in_head < rotated_rows)
        row = row - in_head + 2 * (in_head - half) + 1;
    }
    return first_row + row;
  }
};

}  // namespace tessera
