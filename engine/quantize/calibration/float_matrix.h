// A row-major matrix of floats in memory: what the quantization steps hand to each other.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "backends/dense_products.h"

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

// Runs work(first, count, thread) over [0, rows) in blocks of up to `block` on all threads.
inline void for_row_blocks(DenseProducts& products, size_t rows, size_t block,
                           const std::function<void(size_t first, size_t count, size_t thread)>& work) {
  products.for_each((rows + block - 1) / block, [&](size_t task, size_t thread) {
    work(task * block, std::min(block, rows - task * block), thread);
  });
}

}  // namespace tessera::quantize
