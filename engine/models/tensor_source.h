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

  // Whether the checkpoint's matrix is stored with its columns as rows.
  bool transposed = false;

  // Rotary embeddings may be stored for pairs of neighbours (2i, 2i + 1). Rows are then read so that pairs
  // lie half the rotated rows apart, as ops have them: of the first rotated_rows rows of every head of
  // head_rows rows, row i is the stored row 2i and row i + rotated_rows / 2 the stored row 2i + 1; other rows
  // stay. 0: rows are in order already. Otherwise rotated_rows is even, not 0 and at most head_rows.
  uint64_t head_rows = 0;
  uint64_t rotated_rows = 0;

  // Heads may be longer here than stored: of every padded_head rows, entries of a vector or, with in_columns,
  // columns, the first stored_head are those of the checkpoint, which lie without gaps there, and the others
  // are 0. 0: all are stored. head_rows and first_row count stored rows.
  uint64_t stored_head = 0;
  uint64_t padded_head = 0;
  bool in_columns = false;

  // Whether rows are divided by their lengths (the root of the sum of squares, at least 1e-12).
  bool unit_rows = false;

  // (value + addend) * multiplier is what is read, in f32.
  float addend = 0.0f;
  float multiplier = 1.0f;

  // How many of `count` rows or columns are stored.
  uint64_t stored_count(uint64_t count) const {
    return padded_head == 0 ? count : count / padded_head * stored_head;
  }
  bool is_padding(uint64_t index) const { return padded_head != 0 && index % padded_head >= stored_head; }

  // The row of the checkpoint's tensor that row `row` of this tensor, which is none of padding, is read from.
  uint64_t stored_row(uint64_t row) const {
    if (padded_head != 0 && !in_columns) row = row / padded_head * stored_head + row % padded_head;
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
