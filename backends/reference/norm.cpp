#include <cmath>
#include <numeric>

#include "backends/reference/ops.h"
#include "backends/reference/weight_rows.h"

namespace tessera::reference {

void run_norm(const StoredTensor& gain, const StoredTensor* bias, const Norm& kind, const NormRows& rows,
              std::optional<std::span<const uint32_t>> selected) {
  const size_t columns = rows.x.columns;
  std::vector<float> x(columns);
  std::vector<float> y(columns);
  for (size_t row = 0; row < rows.y.count; ++row) {
    const size_t from = selected ? (*selected)[row] : row;
    for (size_t i = 0; i < columns; ++i) {
      x[i] = rows.x.floats(from)[i];
      if (rows.added) x[i] += kind.added_multiplier * rows.added->floats(from)[i];
      if (rows.sum) rows.sum->floats(row)[i] = x[i];
    }
    double mean = 0;
    if (bias != nullptr) mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(columns);
    double squares = 0;
    for (const float value : x) squares += (double{value} - mean) * (double{value} - mean);
    const double factor = 1.0 / std::sqrt(squares / static_cast<double>(columns) + double{kind.epsilon});
    for (size_t i = 0; i < columns; ++i)
      y[i] = static_cast<float>((double{x[i]} - mean) * factor * double{vector_entry(gain, i)} +
                                (bias != nullptr ? double{vector_entry(*bias, i)} : 0.0));
    store_row(rows.y, row, y);
  }
}

}  // namespace tessera::reference
