#include <algorithm>
#include <cmath>

#include "backends/reference/ops.h"
#include "backends/reference/weight_rows.h"

namespace tessera::reference {

void run_head_norm(const HeadNorm& kind, const StoredTensor& query_gain, const StoredTensor& key_gain,
                   const Rows& x, const Rows& y) {
  for (size_t row = 0; row < y.count; ++row) {
    const std::span<const float> from = x.floats(row);
    const std::span<float> to = y.floats(row);
    if (from.data() != to.data()) std::copy(from.begin(), from.end(), to.begin());
    for (size_t head = 0; head < kind.query_heads + kind.kv_heads; ++head) {
      const std::span<float> values = to.subspan(head * kind.head_dim, kind.head_dim);
      const StoredTensor& gain = head < kind.query_heads ? query_gain : key_gain;
      double squares = 0;
      for (const float value : values) squares += double{value} * double{value};
      const double factor =
          1.0 / std::sqrt(squares / static_cast<double>(kind.head_dim) + double{kind.epsilon});
      for (size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(double{values[i]} * factor * double{vector_entry(gain, i)});
    }
  }
}

}  // namespace tessera::reference
