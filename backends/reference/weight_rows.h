// What the bytes of a stored matrix mean, row by row. Independent of the code that packs them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "gguf-like-format/stored_tensor.h"

namespace tessera::reference {

// A row of an integer scheme: weight k is scale * (code[k] - offset).
struct IntegerRow {
  float scale;
  int32_t offset;
};

// Codes of one row, [columns]: the stored byte for w8a8 (offset 128), the stored code for w4a8 (offset is the
// row's zero point), q * s1 + a for w4a8-g128 (offset 128).
IntegerRow read_integer_row(const StoredTensor& matrix, size_t row, std::span<int32_t> codes);

// sum codes[k] * x[k] - offset * sum x[k], exactly: the integer that every backend must reach before scaling.
int64_t integer_accumulator(std::span<const int32_t> codes, int32_t offset, std::span<const int8_t> x);

// A row of a scheme with scales per group: weight k is scales[g] * (entry[k] - zeros[g]) + minimums[g] with
// g = k / group.
struct GroupRow {
  size_t group;
  std::vector<double> scales;    // one per group
  std::vector<double> zeros;     // one per group; 0 without zero points
  std::vector<double> minimums;  // one per group; 0 without minimums
};

// Entries of one row, [columns]: table[code], or the code itself without a table, less 128 under int8.
GroupRow read_group_row(const StoredTensor& matrix, size_t row, std::span<double> entries);

// The values of one row of any matrix scheme, [columns], exact in float64.
void read_row(const StoredTensor& matrix, size_t row, std::span<double> values);

// Entry i of an f32 vector.
float vector_entry(const StoredTensor& vector, size_t i);

}  // namespace tessera::reference
