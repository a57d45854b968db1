// Activations rounded to bfloat16: how they are rounded, in the layout of graph/bf16_row.h.
#pragma once

#include <cstddef>
#include <span>

namespace tessera::reference {

// Writes the bf16 row of x (float32) at row, bf16_row::row_stride(x.size()) bytes of which all are set. Every
// value is rounded half to even by itself; infinities and NaN stay what they are. A sum is the exact sum of
// its 32 rounded values, rounded once to float32.
void round_row(std::span<const float> x, std::byte* row);

// The rounded values in the order of x, [columns].
void read_bf16_row(const std::byte* row, std::span<double> values);

}  // namespace tessera::reference
