// Sums of outer products, the second moments of vectors.
#pragma once

#include <cstddef>
#include <span>

#include "backends/dense_products.h"

namespace tessera::quantize {

// to[column][row] = from[row][column] with strides in floats; from and to may not overlap.
void transpose(DenseProducts& products, const float* from, size_t from_stride, size_t rows, size_t columns,
               float* to, size_t to_stride);

// out[i][j] += sum_t x[i][t] x[j][t] for j <= i; entries above the diagonal may receive anything. x is
// [rows, count], out has stride floats between its rows.
void add_moments(DenseProducts& products, std::span<const float> x, size_t rows, size_t count, float* out,
                 size_t stride);

}  // namespace tessera::quantize
