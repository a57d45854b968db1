#include <cstring>

#include "backends/reference/ops.h"

namespace tessera::reference {

void run_gather(const StoredTensor& order, const Rows& x, const Rows& y) {
  std::vector<float> values(y.columns);
  for (size_t row = 0; row < y.count; ++row) {
    for (size_t i = 0; i < y.columns; ++i) {
      uint32_t column = 0;
      std::memcpy(&column, order.bytes.subspan(4 * i, 4).data(), 4);
      values[i] = x.floats(row)[column];
    }
    store_row(y, row, values);
  }
}

}  // namespace tessera::reference
