#include <cmath>

#include "backends/reference/ops.h"

namespace tessera::reference {

void run_gate(const Rows& gate_up, const Rows& y) {
  std::vector<float> values(y.columns);
  for (size_t row = 0; row < y.count; ++row) {
    const std::span<const float> x = gate_up.floats(row);
    for (size_t i = 0; i < y.columns; ++i) {
      const double gate = x[i];
      const double up = x[y.columns + i];
      values[i] = static_cast<float>(gate / (1.0 + std::exp(-gate)) * up);
    }
    store_row(y, row, values);
  }
}

}  // namespace tessera::reference
