#include <algorithm>
#include <cmath>

#include "backends/reference/ops.h"

namespace tessera::reference {

void run_rope(const Rope& kind, std::span<const size_t> positions, const Rows& x, const Rows& y) {
  const size_t half = kind.inverse_frequency.size();
  for (size_t row = 0; row < positions.size(); ++row) {
    const std::span<const float> from = x.floats(row);
    const std::span<float> to = y.floats(row);
    if (from.data() != to.data()) std::copy(from.begin(), from.end(), to.begin());
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(positions[row]) * kind.inverse_frequency[i];
      const double cosine = std::cos(angle);
      const double sine = std::sin(angle);
      for (size_t head = 0; head < kind.heads; ++head) {
        float& first = to[head * kind.head_dim + i];
        float& second = to[head * kind.head_dim + i + half];
        const double a = first;
        const double b = second;
        first = static_cast<float>(a * cosine - b * sine);
        second = static_cast<float>(b * cosine + a * sine);
      }
    }
  }
}

}  // namespace tessera::reference
