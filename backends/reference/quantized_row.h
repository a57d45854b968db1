// Int8 activations with one scale per row: how they are rounded, in the layout of graph/q8_row.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tessera::reference {

// Writes the q8 row of x (float32) at row, q8::row_stride(x.size()) bytes of which all are set:
//   scale = max|x| / 127                                       one float32 division
//   code  = x / scale, rounded half to even, within +-127      one float32 division per value, no reciprocal
// A row whose scale is 0 (all zero, or too small for float32) has codes 0. A row with a value that is not
// finite has codes 0 and a NaN scale, so that the fault stays visible.
void quantize_row(std::span<const float> x, std::byte* row);

// The codes [columns] and the scale of such a row.
std::span<const int8_t> codes_of(const std::byte* row, size_t columns);
float scale_of(const std::byte* row, size_t columns);

}  // namespace tessera::reference
