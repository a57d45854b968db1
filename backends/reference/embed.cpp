#include "backends/reference/ops.h"
#include "backends/reference/weight_rows.h"

namespace tessera::reference {

void run_embed(const StoredTensor& table, float multiplier, std::span<const uint32_t> tokens,
               const Rows& out) {
  std::vector<double> values(out.columns);
  for (size_t row = 0; row < tokens.size(); ++row) {
    read_row(table, tokens[row], values);
    const std::span<float> to = out.floats(row);
    for (size_t i = 0; i < values.size(); ++i) to[i] = static_cast<float>(values[i]) * multiplier;
  }
}

void run_add_position(const StoredTensor& table, std::span<const size_t> positions, const Rows& x,
                      const Rows& y) {
  std::vector<double> values(y.columns);
  for (size_t row = 0; row < positions.size(); ++row) {
    read_row(table, positions[row], values);
    for (size_t i = 0; i < values.size(); ++i)
      y.floats(row)[i] = x.floats(row)[i] + static_cast<float>(values[i]);
  }
}

}  // namespace tessera::reference
