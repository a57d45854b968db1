// How one row of an integer scheme is rounded: the scales and zero points that fit its values, the codes of
// the values, and what codes mean. Every encoder goes through here. Formulas: docs/quantization.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/codec/rounding.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

struct RowLevels {
  // Columns that share a step and a zero point, both whole numbers; without groups the step is 1.
  struct Group {
    float step = 1;
    float zero = 0;
    float highest = 0;  // code, before code_offset is added
  };
  float scale = 0;  // 0: all values are zero, and so is what any row of codes 0 means
  size_t group_columns = 1;
  std::vector<Group> groups;
  float lowest = 0;         // code, before code_offset is added
  int32_t code_offset = 0;  // 128 where the file stores signed codes as bytes

  const Group& group_of(size_t column) const { return groups[column / group_columns]; }

  // The code of one value: any float, also one far outside the range, an infinity or a NaN. Not for scale
  // 0.
  int32_t code(float value, const Group& group) const {
    const float scaled = value / scale / group.step + group.zero;
    const float above = scaled > lowest ? scaled : lowest;
    return rounding::half_even(above < group.highest ? above : group.highest) + code_offset;
  }
  // What a code means, in f32: one rounding of scale times a whole number.
  float meaning(int32_t stored_code, const Group& group) const {
    return scale * ((static_cast<float>(stored_code - code_offset) - group.zero) * group.step);
  }

  // Stored codes of columns first, first + 1, …; codes has the size of values.
  void encode(size_t first, std::span<const float> values, std::span<uint8_t> codes) const;
  // What encode's codes mean, without the codes.
  void round(std::span<const float> values, std::span<float> out) const;
};

// The levels of one row of finite values under an integer scheme. clip, in (0, 1], narrows the range that is
// divided into levels: the row's largest magnitude, or its extremes under w4a8. 1 is plain rounding.
void fit_levels(Scheme scheme, std::span<const float> values, float clip, RowLevels& levels);

}  // namespace tessera
