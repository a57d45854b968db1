#include "backends/reference/bf16_row.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"
#include "graph/bf16_row.h"

namespace tessera::reference {

void round_row(std::span<const float> x, std::byte* row) {
  const size_t columns = x.size();
  std::memset(row, 0, bf16_row::row_stride(columns));
  std::vector<double> sums(bf16_row::groups(columns), 0.0);
  for (size_t k = 0; k < columns; ++k) {
    const uint16_t rounded = f32_to_bf16(x[k]);
    std::memcpy(row + sizeof rounded * tile::bf16_position(k), &rounded, sizeof rounded);
    sums[k / bf16_row::kGroup] += double{bf16_to_f32(rounded)};
  }
  for (size_t group = 0; group < sums.size(); ++group) {
    const auto sum = static_cast<float>(sums[group]);
    std::memcpy(row + bf16_row::sums_offset(columns) + sizeof sum * group, &sum, sizeof sum);
  }
}

void read_bf16_row(const std::byte* row, std::span<double> values) {
  for (size_t k = 0; k < values.size(); ++k) {
    uint16_t stored = 0;
    std::memcpy(&stored, row + sizeof stored * tile::bf16_position(k), sizeof stored);
    values[k] = double{bf16_to_f32(stored)};
  }
}

}  // namespace tessera::reference
