#include "engine/quantize/calibration/moment_factor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <stdexcept>

#include "engine/quantize/calibration/moment_sums.h"

namespace tessera::quantize {

namespace {

constexpr std::array<double, 3> kDampings{0.01, 0.1, 1.0};
constexpr size_t kPivots = 32;  // rows of a block finished together before the rest of it is updated

double moment(const FloatMatrix& moments, size_t i, size_t j) {
  return static_cast<double>(i >= j ? moments.row(i)[j] : moments.row(j)[i]);
}

// Rows [0, rows) of a lower triangular matrix in float64.
struct Triangle {
  size_t rows = 0;
  std::vector<double> values;  // [rows, rows]
  explicit Triangle(size_t count) : rows(count), values(count * count) {}
  double* row(size_t index) { return &values[index * rows]; }
};

// row[0, count) -= factor * other[0, count)
void subtract(double* row, const double* other, double factor, size_t count) {
  for (size_t i = 0; i < count; ++i) row[i] -= factor * other[i];
}

// Replaces a symmetric matrix, given at and below the diagonal, by the lower triangular V with V^T V equal to
// it. False when a pivot is not positive.
bool factor_block(DenseProducts& products, Triangle& v) {
  for (size_t end = v.rows; end > 0;) {
    const size_t first = end > kPivots ? end - kPivots : 0;
    for (size_t j = end; j-- > first;) {
      double* row = v.row(j);
      for (size_t i = j + 1; i < end; ++i) subtract(row, v.row(i), v.row(i)[j], j + 1);
      if (!(row[j] > 0.0) || !std::isfinite(row[j])) return false;
      const double pivot = std::sqrt(row[j]);
      for (size_t c = 0; c < j; ++c) row[c] /= pivot;
      row[j] = pivot;
    }
    products.for_each(first, [&](size_t row, size_t) {
      for (size_t i = first; i < end; ++i) subtract(v.row(row), v.row(i), v.row(i)[row], row + 1);
    });
    end = first;
  }
  return true;
}

// The transposed inverse of V in f32: [rows, rows], upper triangular.
FloatMatrix transposed_inverse(DenseProducts& products, Triangle& v) {
  FloatMatrix result(v.rows, v.rows);
  constexpr size_t kStrip = 32;
  products.for_each((v.rows + kStrip - 1) / kStrip, [&](size_t strip, size_t) {
    const size_t first = strip * kStrip;
    const size_t width = std::min(kStrip, v.rows - first);
    // Columns [first, first + width) of the inverse, row by row; rows above `first` are zero.
    std::vector<double> part((v.rows - first) * width);
    for (size_t i = first; i < v.rows; ++i) {
      double* row = &part[(i - first) * width];
      if (i - first < width) row[i - first] = 1.0;
      for (size_t k = first; k < i; ++k) subtract(row, &part[(k - first) * width], v.row(i)[k], width);
      for (size_t c = 0; c < width; ++c) {
        row[c] /= v.row(i)[i];
        result.row(first + c)[i] = static_cast<float>(row[c]);
      }
    }
  });
  return result;
}

// Turns -M, given at and below the diagonal, into shares, from the last block of columns to the first.
// False when a pivot is not positive.
bool factor_in_place(DenseProducts& products, FloatMatrix& matrix) {
  const size_t n = matrix.columns;
  for (size_t end = n; end > 0;) {
    const size_t first = (end - 1) / kFactorBlock * kFactorBlock;
    const size_t count = end - first;
    Triangle v(count);
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j <= i; ++j) v.row(i)[j] = -static_cast<double>(matrix.row(first + i)[first + j]);
    }
    if (!factor_block(products, v)) return false;
    if (first > 0) {
      // Rows of V left of the block: V_block^-T times these rows of M; everything transposed, because that
      // is how both products read it.
      const FloatMatrix inverse = transposed_inverse(products, v);
      std::vector<float> moments(first * count);
      std::vector<float> factor(first * count);
      transpose(products, &matrix.values[first * n], n, count, first, moments.data(), count);
      DenseProduct job;
      job.a = moments.data();
      job.a_stride = count;
      job.m = first;
      job.b = inverse.values.data();
      job.b_stride = count;
      job.n = count;
      job.k = count;
      job.out = factor.data();
      job.out_stride = count;
      products.multiply(job);
      add_moments(products, factor, first, count, matrix.values.data(), n);
      transpose(products, factor.data(), count, first, count, &matrix.values[first * n], n);
    }
    products.for_each(count, [&](size_t i, size_t) {
      const std::span<float> row = matrix.row(first + i);
      const double pivot = v.row(i)[i];
      // These rows were made from -M.
      for (size_t j = 0; j < first; ++j) row[j] = static_cast<float>(-static_cast<double>(row[j]) / pivot);
      for (size_t j = 0; j < i; ++j) row[first + j] = static_cast<float>(v.row(i)[j] / pivot);
      std::fill(row.begin() + static_cast<std::ptrdiff_t>(first + i), row.end(), 0.0f);
    });
    end = first;
  }
  return true;
}

}  // namespace

MomentFactor factor_moments(DenseProducts& products, const FloatMatrix& moments) {
  const size_t n = moments.columns;
  double total = 0;
  for (size_t i = 0; i < n; ++i) {
    const double entry = moment(moments, i, i);
    if (!(entry >= 0.0) || !std::isfinite(entry))
      throw std::runtime_error(
          fmt::format("moment of input column {}: expected a finite number not below 0, found {}", i, entry));
    total += entry;
  }
  MomentFactor result;
  result.order.resize(n);
  std::iota(result.order.begin(), result.order.end(), 0u);
  std::stable_sort(result.order.begin(), result.order.end(),
                   [&](uint32_t a, uint32_t b) { return moment(moments, a, a) > moment(moments, b, b); });
  result.shares = FloatMatrix(n, n);
  if (total == 0.0) return result;  // no input was ever used: no column has a share in another's error
  const double mean = total / static_cast<double>(n);
  for (const double damping : kDampings) {
    products.for_each(n, [&](size_t i, size_t) {
      const std::span<float> row = result.shares.row(i);
      for (size_t j = 0; j <= i; ++j) {
        const double entry = moment(moments, result.order[i], result.order[j]);
        row[j] = static_cast<float>(-(i == j ? entry + damping * mean : entry));
      }
    });
    if (factor_in_place(products, result.shares)) return result;
  }
  throw std::runtime_error(fmt::format(
      "moments of {} input columns: expected to be factored with at most {} of their mean added to "
      "the diagonal, found a pivot that is not positive",
      n, kDampings.back()));
}

}  // namespace tessera::quantize
