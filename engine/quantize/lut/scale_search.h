// Chooses the scale of every group of a row by the squared error of its weights instead of by the largest of
// them.
#pragma once

#include <span>

#include "engine/codec/table_levels.h"
#include "gguf-like-format/scheme.h"

namespace tessera::quantize {

// The levels of one row of finite values with the smallest sum of importance[column] * (value - meaning)^2
// that was found in each group, codes being the nearest. importance: positive or 0 for every column, or empty
// for 1 everywhere; a group without any counts as if it were 1 throughout. table: null with zero points.
//
// Without zero points: 1.15 * 0.965^k of the plain scale, k = 0 … 63 (down to 0.12 of it), and itself, each
// followed by the best scale for the codes that it gives. With zero points: ranges of 1, 0.96, … 0.36 of the
// plain one around its middle, each followed by the best scale and zero point for its codes, twice. All in
// float64, scales and zero points rounded to f16 before they are judged.
void search_levels(const TableFormat& format, const ValueTable* table, std::span<const float> values,
                   std::span<const float> importance, TableLevels& levels);

}  // namespace tessera::quantize
