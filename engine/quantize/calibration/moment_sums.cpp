#include "engine/quantize/calibration/moment_sums.h"

#include <algorithm>

namespace tessera::quantize {

namespace {

constexpr size_t kSquare = 64;  // edge of the squares in which rows and columns change places
// Rows per product: large enough for the kernels, small enough that little is computed above the diagonal.
constexpr size_t kRows = 256;

}  // namespace

void transpose(DenseProducts& products, const float* from, size_t from_stride, size_t rows, size_t columns,
               float* to, size_t to_stride) {
  products.for_each((columns + kSquare - 1) / kSquare, [=](size_t strip, size_t) {
    const size_t first = strip * kSquare;
    const size_t last = std::min(columns, first + kSquare);
    for (size_t start = 0; start < rows; start += kSquare) {
      const size_t end = std::min(rows, start + kSquare);
      for (size_t column = first; column < last; ++column) {
        for (size_t row = start; row < end; ++row)
          to[column * to_stride + row] = from[row * from_stride + column];
      }
    }
  });
}

void add_moments(DenseProducts& products, std::span<const float> x, size_t rows, size_t count, float* out,
                 size_t stride) {
  for (size_t first = 0; first < rows; first += kRows) {
    const size_t width = std::min(kRows, rows - first);
    DenseProduct job;
    job.a = &x[first * count];
    job.a_stride = count;
    job.m = width;
    job.b = x.data();
    job.b_stride = count;
    job.n = first + width;
    job.k = count;
    job.out = out + first * stride;
    job.out_stride = stride;
    job.accumulate = true;
    products.multiply(job);
  }
}

}  // namespace tessera::quantize
