// How one row of a table scheme is rounded: the scale of every group of columns, the codes these give, and
// what codes mean. The same shape as RowLevels, so that error feedback works with either. Formulas:
// docs/quantization.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/codec/rounding.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

// The values that codes stand for before a group's scale, and where one code ends and the next begins.
struct ValueTable {
  size_t size = 0;                 // 4, 8 or 16
  std::array<float, 16> values{};  // rising; 0 beyond size
  std::array<float, 16> limits{};  // values[i] or less becomes code i or a lower one; infinite from size - 1
  float largest = 0;               // magnitude
  uint8_t zero_code = 0;           // the code nearest to 0

  int32_t nearest(float value) const {
    int32_t code = 0;
    for (size_t i = 0; i + 1 < size; ++i) code += value > limits[i] ? 1 : 0;
    return code;
  }
};

// values: 4, 8 or 16 of them, rising, not all 0. Halfway between two entries the even code is the nearest.
ValueTable make_value_table(std::span<const float> values);

// An entry as a table scheme can store it: rounded to bfloat16, or with int8 activations to a multiple of
// 1/127 in [-1, 1]. Half to even.
float stored_entry(const TableFormat& format, double value);

struct TableLevels {
  // Both are f16 values. A group of zeros has scale 0.
  struct Group {
    float scale = 0;
    float zero = 0;  // 0 to 15, only with zero points
  };
  const ValueTable* table = nullptr;  // null with zero points; outlives the levels
  size_t group_columns = 1;
  std::vector<Group> groups;

  const Group& group_of(size_t column) const { return groups[column / group_columns]; }

  // The code of one value, which may be any float.
  int32_t code(float value, const Group& group) const {
    if (table != nullptr) return group.scale == 0.0f ? table->zero_code : table->nearest(value / group.scale);
    if (group.scale == 0.0f) return 0;
    return rounding::half_even_clamped(value / group.scale + group.zero, 0.0f, 15.0f);
  }
  // What a code means, in f32.
  float meaning(int32_t code, const Group& group) const {
    if (table != nullptr) return group.scale * table->values[static_cast<size_t>(code)];
    return group.scale * (static_cast<float>(code) - group.zero);
  }

  // Codes of columns first, first + 1, …; codes has the size of values.
  void encode(size_t first, std::span<const float> values, std::span<uint8_t> codes) const;
  // What encode's codes mean, without the codes.
  void round(std::span<const float> values, std::span<float> out) const;
};

// The levels that plain rounding gives one row of finite values: scale = largest magnitude / table.largest,
// or with zero points scale = (high - low) / 15 and zero = -low / scale, where the range includes 0; both
// rounded to f16. table is null with zero points.
void fit_levels(const TableFormat& format, const ValueTable* table, std::span<const float> values,
                TableLevels& levels);

// A group's scale as f16 stores it.
float stored_group_scale(double exact);
// A group's zero point, clamped to the codes 0 to 15, as f16 stores it.
float stored_group_zero(double exact);

// A magnitude that no value of a matrix in this format may reach, because plain scales of its groups would
// overflow f16.
double magnitude_limit(const TableFormat& format);

}  // namespace tessera
