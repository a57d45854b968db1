// How one row of int8-gG, int4m or int4k is rounded: the levels of its groups, the codes these give, and what
// codes mean. The schemes exist for codes that other tools made; a row of those is given as the same levels.
// Formulas: docs/quantization.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

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

  // A code q means scale * (q - zero) + minimum, with products that are exact in f32.
  struct Meaning {
    float scale = 0;
    float minimum = 0;
    int32_t zero = 0;  // 128 for int8
  };
  Meaning meaning(size_t group) const;

  // Codes of columns first, first + 1, …; codes has the size of values, which may be any floats.
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
