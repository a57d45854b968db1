#include <algorithm>
#include <cmath>

#include "backends/reference/bf16_row.h"
#include "backends/reference/ops.h"
#include "backends/reference/quantized_row.h"
#include "backends/reference/weight_rows.h"

namespace tessera::reference {

namespace {

void run_integer(const StoredTensor& matrix, const StoredTensor* bias, const Rows& x, const Rows& y,
                 size_t first_column) {
  std::vector<int32_t> codes(x.columns);
  for (size_t n = 0; n < matrix.rows(); ++n) {
    const IntegerRow meaning = read_integer_row(matrix, n, codes);
    for (size_t row = 0; row < x.count; ++row) {
      const int64_t sum = integer_accumulator(codes, meaning.offset, codes_of(x.bytes(row), x.columns));
      // Separate statements, so that no compiler fuses the addition into the multiplication.
      const float scale = meaning.scale * scale_of(x.bytes(row), x.columns);
      float result = scale * static_cast<float>(sum);
      if (bias != nullptr) result += vector_entry(*bias, n);
      y.floats(row)[first_column + n] = result;
    }
  }
}

// Whole numbers are summed exactly within a group; groups are added in float64.
void run_groups(const StoredTensor& matrix, const StoredTensor* bias, const Rows& x, const Rows& y,
                size_t first_column) {
  // Entries times `steps`, rounded, are the whole numbers that are summed: bytes, whatever a table holds.
  const double steps = scheme_facts(matrix.scheme).table ? 127 : 1;
  std::vector<double> entries(x.columns);
  std::vector<int64_t> whole(x.columns);
  for (size_t n = 0; n < matrix.rows(); ++n) {
    const GroupRow meaning = read_group_row(matrix, n, entries);
    for (size_t k = 0; k < whole.size(); ++k)
      whole[k] = std::llrint(std::fmin(std::fmax(steps * entries[k], -128.0), 127.0));
    const double start = bias != nullptr ? double{vector_entry(*bias, n)} : 0.0;
    for (size_t row = 0; row < x.count; ++row) {
      const std::span<const int8_t> codes = codes_of(x.bytes(row), x.columns);
      double result = 0;
      for (size_t g = 0; g < meaning.scales.size(); ++g) {
        int64_t products = 0;
        int64_t total = 0;
        for (size_t k = g * meaning.group; k < std::min((g + 1) * meaning.group, codes.size()); ++k) {
          products += whole[k] * codes[k];
          total += codes[k];
        }
        result += meaning.scales[g] *
                      (static_cast<double>(products) - meaning.zeros[g] * static_cast<double>(total)) +
                  steps * meaning.minimums[g] * static_cast<double>(total);
      }
      result *= double{scale_of(x.bytes(row), x.columns)} / steps;
      y.floats(row)[first_column + n] = static_cast<float>(start + result);
    }
  }
}

void run_float(const StoredTensor& matrix, const StoredTensor* bias, const Rows& x, const Rows& y,
               size_t first_column) {
  std::vector<double> weights(x.columns);
  std::vector<std::vector<double>> inputs(x.count, std::vector<double>(x.columns));
  for (size_t row = 0; row < x.count; ++row) {
    if (x.type == ElementType::bf16) {
      read_bf16_row(x.bytes(row), inputs[row]);
    } else {
      std::copy(x.floats(row).begin(), x.floats(row).end(), inputs[row].begin());
    }
  }
  for (size_t n = 0; n < matrix.rows(); ++n) {
    read_row(matrix, n, weights);
    const double start = bias != nullptr ? double{vector_entry(*bias, n)} : 0.0;
    for (size_t row = 0; row < x.count; ++row) {
      double sum = start;
      for (size_t k = 0; k < weights.size(); ++k) sum += weights[k] * inputs[row][k];
      y.floats(row)[first_column + n] = static_cast<float>(sum);
    }
  }
}

}  // namespace

void run_linear_part(const StoredTensor& matrix, const StoredTensor* bias, const Rows& x, const Rows& y,
                     size_t first_column) {
  if (has_row_scales(matrix.scheme)) {
    run_integer(matrix, bias, x, y, first_column);
  } else if (x.type == ElementType::q8) {
    run_groups(matrix, bias, x, y, first_column);
  } else {
    run_float(matrix, bias, x, y, first_column);
  }
}

}  // namespace tessera::reference
