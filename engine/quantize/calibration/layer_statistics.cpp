#include "engine/quantize/calibration/layer_statistics.h"

#include <cassert>

namespace tessera::quantize {

namespace {

constexpr size_t kRowBlock = 16;

}  // namespace

void reorder_inputs(DenseProducts& products, InputStatistics& statistics, std::span<const size_t> order) {
  const size_t columns = order.size();
  assert(statistics.largest.size() == columns);
  const std::vector<float> largest = statistics.largest;
  const std::vector<float> squares = statistics.squares;
  for (size_t i = 0; i < columns; ++i) {
    statistics.largest[i] = largest[order[i]];
    statistics.squares[i] = squares[order[i]];
  }
  const auto reorder_row = [&](std::span<float> row, std::vector<float>& former) {
    former.assign(row.begin(), row.end());
    for (size_t i = 0; i < columns; ++i) row[i] = former[order[i]];
  };
  std::vector<std::vector<float>> scratch(products.threads());
  const auto reorder_columns = [&](FloatMatrix& matrix) {
    for_row_blocks(products, matrix.rows, kRowBlock, [&](size_t first, size_t count, size_t thread) {
      for (size_t row = first; row < first + count; ++row) reorder_row(matrix.row(row), scratch[thread]);
    });
  };
  reorder_columns(statistics.sample);

  FloatMatrix& moments = statistics.moments;
  if (moments.rows == 0) return;
  // Only the lower triangle is kept: mirrored first, so that whole rows can be moved without a second matrix.
  for_row_blocks(products, columns, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row)
      for (size_t column = row + 1; column < columns; ++column)
        moments.values[row * columns + column] = moments.values[column * columns + row];
  });
  reorder_columns(moments);
  std::vector<bool> placed(columns, false);
  std::vector<float> held;
  for (size_t start = 0; start < columns; ++start) {  // along the cycles of the permutation
    if (placed[start]) continue;
    held.assign(moments.row(start).begin(), moments.row(start).end());
    size_t at = start;
    for (; order[at] != start; at = order[at]) {
      const std::span<const float> from = moments.row(order[at]);
      std::copy(from.begin(), from.end(), moments.row(at).begin());
      placed[at] = true;
    }
    std::copy(held.begin(), held.end(), moments.row(at).begin());
    placed[at] = true;
  }
}

void divide_inputs(DenseProducts& products, InputStatistics& statistics, std::span<const float> divisors) {
  const size_t columns = divisors.size();
  assert(statistics.largest.size() == columns);
  for (size_t i = 0; i < columns; ++i) {
    statistics.largest[i] /= divisors[i];
    statistics.squares[i] /= divisors[i] * divisors[i];
  }
  const auto divide_row = [&](std::span<float> row, float by) {
    for (size_t i = 0; i < columns; ++i) row[i] /= divisors[i] * by;
  };
  for_row_blocks(products, statistics.sample.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row) divide_row(statistics.sample.row(row), 1.0f);
  });
  for_row_blocks(products, statistics.moments.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row)
      divide_row(statistics.moments.row(row), divisors[row]);
  });
}

}  // namespace tessera::quantize
