#include <cmath>
#include <numbers>

#include "backends/reference/ops.h"

namespace tessera::reference {

namespace {

double passed(GateFunction function, double x) {
  if (function == GateFunction::silu) return x / (1.0 + std::exp(-x));
  if (function == GateFunction::relu) return x < 0 ? 0 : x;
  const double u = std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1.0 + std::tanh(u));
}

}  // namespace

void run_gate(const Gate& kind, const Rows& gate_up, const Rows& y) {
  std::vector<float> values(y.columns);
  for (size_t row = 0; row < y.count; ++row) {
    const std::span<const float> x = gate_up.floats(row);
    for (size_t i = 0; i < y.columns; ++i) {
      const double up = kind.has_up ? x[y.columns + i] : 1.0;
      values[i] = static_cast<float>(passed(kind.function, x[i]) * up);
    }
    store_row(y, row, values);
  }
}

void run_soft_cap(const SoftCap& kind, const Rows& x, const Rows& y) {
  const double cap = kind.cap;
  for (size_t row = 0; row < y.count; ++row)
    for (size_t i = 0; i < y.columns; ++i)
      y.floats(row)[i] = static_cast<float>(cap * std::tanh(double{x.floats(row)[i]} / cap));
}

}  // namespace tessera::reference
