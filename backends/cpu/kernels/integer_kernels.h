// Products of int8 activations with the integer schemes w8a8, w4a8 and w4a8-g128. Raw pointers and plain
// structs only, for the reason given in kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu {

// One integer product: rows of quantized activations times 16-row panels, scaled and stored as floats:
// y[t][n] = (row_scale[n] * x_scale[t]) * float(sum_k u[n][k] x[t][k] - zero[n] * sum_k x[t][k]) + bias[n].
struct IntegerProduct {
  const uint8_t* panels;  // stored or expanded panels, panel_stride bytes apart
  size_t panel_stride;
  size_t rows;       // outputs to store; the last panel may be partly used
  size_t columns;    // stored columns: a multiple of 64, of 128 with groups
  const uint8_t* x;  // q8 rows (graph/q8_row.h), x_stride bytes apart
  size_t x_stride;
  size_t x_scale_offset;  // byte offset of the scale; the total follows it, then the group sums
  size_t tokens;
  const float* row_scale;  // [rows rounded up to 16]
  // [rows rounded up to 16]; null means 128 for every row. Given to product_bytes, it also says that every
  // byte is an expanded 4-bit code, at most 15.
  const uint8_t* row_zero;
  const float* bias;  // [rows] or null
  float* y;           // [tokens][rows], y_stride floats apart
  size_t y_stride;
};

// The kernels of one kind of 4-bit codes.
struct NibbleKernels {
  // Straight from codes, for any number of tokens.
  void (*product)(const IntegerProduct&);
  // One panel of stored columns to a panel of bytes u (tile::byte_in_panel).
  void (*expand)(const uint8_t* panel, size_t columns, uint8_t* bytes);
};

struct IntegerKernels {
  size_t code_tokens;         // up to this many tokens codes are multiplied faster directly than expanded
  NibbleKernels row_nibbles;  // w4a8: u = q
  NibbleKernels progressive;  // w4a8-g128: u = q * s1 + a
  void (*product_bytes)(const IntegerProduct&);  // w8a8, and all panels that were expanded
};

}  // namespace tessera::cpu
