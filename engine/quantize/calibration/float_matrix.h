// A row-major matrix of floats in memory: what the quantization steps hand to each other.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace tessera::quantize {

struct FloatMatrix {
  size_t rows = 0;
  size_t columns = 0;
  std::vector<float> values;  // [rows, columns]

  FloatMatrix() = default;
  FloatMatrix(size_t row_count, size_t column_count)
      : rows(row_count), columns(column_count), values(row_count * column_count) {}
  std::span<float> row(size_t index) { return std::span(values).subspan(index * columns, columns); }
  std::span<const float> row(size_t index) const {
    return std::span(values).subspan(index * columns, columns);
  }
};

}  // namespace tessera::quantize
