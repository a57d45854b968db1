// The jobs an instruction set must do for table schemes (lut2, lut3, lut4 and int4; scheme.h says what their
// panels hold): products straight from codes for few tokens, and panels expanded to one value per weight, in
// cache, for many. Raw pointers and plain structs only, for the reason given in kernels.h.
//
// With int8 activations an entry of the table is the byte t + 128, t = 127 * table[code] rounded, |t| <= 127,
// or the code itself with zero points. A group's product is exact: d = sum_k byte[n][k] x[t][k] - zero *
// sum_k x[t][k], where zero is 128 without zero points. Then acc = fma(scale, d, acc) over groups in order,
// in f32 for every row by itself, and y = (acc * factor) + bias with factor = x_scale / 127, or x_scale with
// zero points. d itself is one fma(-zero, sum, dot) of whole numbers, exact without zero points. So all
// instruction sets agree to the last bit.
//
// With bf16 activations d = sum_k table[code] x[t][k] - zero * sum_k x[t][k] is summed in f32 in any order
// that does not depend on the other tokens or the number of rows, and factor is 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu {

enum TableCodes : uint8_t { kLut2, kLut3, kLut4, kInt4, kTableCodeKinds };

// y[t][n] for rows of activations times 16-row panels.
struct TableProduct {
  const uint8_t* panels;  // as stored
  size_t panel_stride;
  size_t rows;         // outputs to store; the last panel may be partly used
  size_t columns;      // stored columns, a multiple of group
  size_t group;        // 32, 64, 128 or 256
  const float* table;  // [16]; not read with zero points
  const uint8_t* x;    // q8 or bf16 rows (graph/q8_row.h, bf16_row.h), x_stride bytes apart
  size_t x_stride;
  size_t x_columns;  // logical, from which the offsets within a row follow
  size_t tokens;
  const float* bias;  // [rows] or null
  float* y;           // [tokens][rows], y_stride floats apart
  size_t y_stride;
};

// The same with panels that were expanded before. values: bytes in the order of tile::byte_in_panel for int8;
// bfloat16 table entries, or codes with zero points, in the order of tile::bf16_in_panel applied to
// tile::bf16_position for bf16. Every panel has scales, and with zero points zeros, [groups][16] f32.
struct ExpandedPanel {
  uint8_t* values;
  float* scales;
  float* zeros;  // null without zero points
};
struct ExpandedProduct {
  const uint8_t* values;
  size_t values_stride;  // bytes from panel to panel
  const float* scales;
  const float* zeros;    // null without zero points
  size_t scales_stride;  // floats from panel to panel, of scales and of zeros
  size_t rows;
  size_t columns;
  size_t group;
  const uint8_t* x;
  size_t x_stride;
  size_t x_columns;
  size_t tokens;
  const float* bias;
  float* y;
  size_t y_stride;
};

// The kernels of one kind of codes.
struct TableCodeKernels {
  // Straight from codes, for any number of tokens.
  void (*product)(const TableProduct&);
  // One stored panel to values.
  void (*expand)(const uint8_t* panel, size_t columns, size_t group, const float* table,
                 const ExpandedPanel& out);
};

struct TableKernels {
  size_t code_tokens;  // up to this many tokens codes are multiplied faster directly than expanded
  TableCodeKernels codes[kTableCodeKinds];
  void (*product_expanded)(const ExpandedProduct&);
};

}  // namespace tessera::cpu
