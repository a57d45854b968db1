// How one row of int8-gG, int4m or int4k is rounded: the levels of its groups, the codes these give, and what
// codes mean. The same shape as RowLevels, so that error feedback works with either. The schemes exist for
// codes that other tools made; a row of those is given as the same levels. Formulas: docs/quantization.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/codec/rounding.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

// Floats are f16 values, of either sign; they are rounded to f16 where they are none.
struct GroupLevels {
  CodeKind kind = CodeKind::int8;
  size_t group_columns = 1;
  std::vector<float> scales;            // of every group; int4k: d of every block of 256 columns
  std::vector<float> minimums;          // int4m: of every group; int4k: dmin of every block; else empty
  std::vector<uint8_t> group_scales;    // of every group, int4k only
  std::vector<uint8_t> group_minimums;  // likewise; dmin times one of these is subtracted

  // What the columns of a group share: a code q means scale * (q - zero) + minimum, with products that are
  // exact in f32.
  struct Group {
    float scale = 0;
    float minimum = 0;
    int32_t zero = 0;    // 128 for int8
    float highest = 15;  // code less zero
    float lowest = 0;    // likewise
  };
  Group group_of(size_t column) const;

  // The code of one value, which may be any float.
  static int32_t code(float value, const Group& group) {
    const float steps = group.scale == 0.0f ? 0.0f : (value - group.minimum) / group.scale;
    const float above = steps > group.lowest ? steps : group.lowest;
    return rounding::half_even(above < group.highest ? above : group.highest) + group.zero;
  }
  static float meaning(int32_t code, const Group& group) {
    return group.scale * static_cast<float>(code - group.zero) + group.minimum;
  }

  // Codes of columns first, first + 1, …; codes has the size of values.
  void encode(size_t first, std::span<const float> values, std::span<uint8_t> codes) const;
  // What encode's codes mean, without the codes; values begin at column 0.
  void round(std::span<const float> values, std::span<float> out) const;
};

// The levels of one row of finite values. int8: scale = largest magnitude / 127. int4m and int4k: the range
// of a group divided by 15, or the scale and minimum of least squared error that a few narrower ranges lead
// to, where these are better; int4k then rounds the scales and minimums of a block to 255ths of its largest.
void fit_levels(const SchemeFacts& scheme, std::span<const float> values, GroupLevels& levels);

// A magnitude that no value of a matrix of this kind may reach, because levels could overflow f16.
double magnitude_limit(CodeKind kind);

}  // namespace tessera
