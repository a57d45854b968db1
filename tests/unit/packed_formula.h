// What the codes of a packed matrix stand for, by the formulas of engine/checkpoint/packed_matrix.h.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/checkpoint/packed_matrix.h"

namespace tessera::crafted {

// [rows, columns] in f32, columns in stored order.
inline std::vector<float> packed_values(const PackedFormat& format, const PackedRows& rows, size_t columns) {
  std::vector<float> values(rows.codes.size());
  const size_t groups = (columns + format.group - 1) / format.group;
  const size_t blocks = format.block == 0 ? 0 : (columns + format.block - 1) / format.block;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t row = i / columns;
    const size_t group = row * groups + i % columns / format.group;
    const auto code = static_cast<float>(rows.codes[i]);
    switch (format.meaning) {
      case PackedMeaning::zero_point:
        values[i] = rows.scales[group] * (code - rows.offsets[group]);
        break;
      case PackedMeaning::minimum:
        values[i] = rows.scales[group] * code + rows.offsets[group];
        break;
      case PackedMeaning::table:
        values[i] = rows.scales[group] * format.table[rows.codes[i]];
        break;
      case PackedMeaning::nested: {
        const size_t block = row * blocks + i % columns / format.block;
        const float scale = rows.block_scales[block] * static_cast<float>(rows.group_scales[group]);
        const float minimum = rows.block_minimums[block] * static_cast<float>(rows.group_minimums[group]);
        values[i] = scale * code - minimum;
        break;
      }
    }
  }
  return values;
}

}  // namespace tessera::crafted
