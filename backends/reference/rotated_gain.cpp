#include <algorithm>
#include <vector>

#include "backends/reference/ops.h"
#include "backends/reference/weight_rows.h"
#include "graph/rotation.h"

namespace tessera::reference {

void run_rotated_gain(const StoredTensor& gain, const Rows& x, const Rows& y) {
  const Rotation rotation(x.columns);
  for (size_t row = 0; row < y.count; ++row) {
    const std::span<const float> from = x.floats(row);
    std::vector<double> values(from.begin(), from.end());
    rotation.undo(values);
    for (size_t i = 0; i < values.size(); ++i) values[i] *= static_cast<double>(vector_entry(gain, i));
    rotation.apply(values);
    std::transform(values.begin(), values.end(), y.floats(row).begin(),
                   [](double value) { return static_cast<float>(value); });
  }
}

}  // namespace tessera::reference
