#include "backends/reference/quantized_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "graph/q8_row.h"

namespace tessera::reference {

namespace {

template <class Value>
void put(std::byte* row, size_t offset, Value value) {
  std::memcpy(row + offset, &value, sizeof value);
}

float row_scale(std::span<const float> x) {
  float largest = 0;
  for (const float value : x) {
    if (!std::isfinite(value)) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(value));
  }
  return largest / 127.0f;
}

}  // namespace

void quantize_row(std::span<const float> x, std::byte* row) {
  const size_t columns = x.size();
  std::memset(row, 0, q8::row_stride(columns));
  const float scale = row_scale(x);
  put(row, q8::scale_offset(columns), scale);
  if (!(scale > 0)) return;
  int32_t total = 0;
  std::vector<int32_t> fine(q8::fine_groups(columns), 0);
  for (size_t group = 0; group < q8::groups(columns); ++group) {
    int32_t sum = 0;
    const size_t end = std::min(columns, (group + 1) * q8::kGroup);
    for (size_t i = group * q8::kGroup; i < end; ++i) {
      const float code = std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f);
      put(row, i, static_cast<int8_t>(code));
      sum += static_cast<int32_t>(code);
      fine[i / q8::kFineGroup] += static_cast<int32_t>(code);
    }
    put(row, q8::sums_offset(columns) + 4 * group, sum);
    total += sum;
  }
  put(row, q8::total_offset(columns), total);
  for (size_t i = 0; i < fine.size(); ++i) put(row, q8::fine_sums_offset(columns) + 4 * i, fine[i]);
}

std::span<const int8_t> codes_of(const std::byte* row, size_t columns) {
  return {reinterpret_cast<const int8_t*>(row), columns};
}

float scale_of(const std::byte* row, size_t columns) {
  float scale = 0;
  std::memcpy(&scale, row + q8::scale_offset(columns), sizeof scale);
  return scale;
}

}  // namespace tessera::reference
