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

void run_float(const StoredTensor& matrix, const StoredTensor* bias, const Rows& x, const Rows& y,
               size_t first_column) {
  std::vector<double> weights(x.columns);
  for (size_t n = 0; n < matrix.rows(); ++n) {
    read_row(matrix, n, weights);
    const double start = bias != nullptr ? double{vector_entry(*bias, n)} : 0.0;
    for (size_t row = 0; row < x.count; ++row) {
      const std::span<const float> values = x.floats(row);
      double sum = start;
      for (size_t k = 0; k < weights.size(); ++k) sum += weights[k] * double{values[k]};
      y.floats(row)[first_column + n] = static_cast<float>(sum);
    }
  }
}

}  // namespace

void run_linear_part(const StoredTensor& matrix, const StoredTensor* bias, const Rows& x, const Rows& y,
                     size_t first_column) {
  if (x.type == ElementType::q8) {
    run_integer(matrix, bias, x, y, first_column);
  } else {
    run_float(matrix, bias, x, y, first_column);
  }
}

}  // namespace tessera::reference
