// The jobs an instruction set must do for schemes with scales per group (scheme.h says what their panels
// hold): products straight from codes for few tokens, and panels expanded to one value per weight, in cache,
// for many. Raw pointers and plain structs only, for the reason given in kernels.h.
//
// A group has a scale, and a zero point or a minimum (0 where it has neither); those of int4k are products of
// its block's and its own, exact in f32. With int8 activations the value of a code is the byte t + 128,
// t = 127 * table[code] rounded, |t| <= 127; the code, around 128 under int8; or the code itself. A group's
// product is exact: d = sum_k byte[n][k] x[t][k] - zero * sum_k x[t][k], where zero is 128 with tables and
// under int8. Then acc = fma(scale, d, acc), and with minimums acc = fma(minimum, sum_k x[t][k], acc), over
// groups in order, in f32 for every row by itself, and y = (acc * factor) + bias with factor = x_scale, or
// x_scale / 127 with tables. d itself is one fma(-zero, sum, dot) of whole numbers, exact without zero
// points. So all instruction sets agree to the last bit.
//
// With bf16 activations d = sum_k value x[t][k] - zero * sum_k x[t][k], the value of a code being
// table[code], code - 128 under int8 or the code, and minimum * sum_k x[t][k], are summed in f32 in any order
// that does not depend on the other tokens or the number of rows, and factor is 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu {

enum TableCodes : uint8_t { kLut2, kLut3, kLut4, kInt4, kInt8, kInt4m, kInt4k, kTableCodeKinds };

// How the results of a group are put together, as above.
enum class GroupForm : uint8_t { table, zero_points, minimums, bytes };
constexpr bool has_offsets(GroupForm form) {
  return form == GroupForm::zero_points || form == GroupForm::minimums;
}

// y[t][n] for rows of activations times 16-row panels.
struct TableProduct {
  const uint8_t* panels;  // as stored
  size_t panel_stride;
  size_t rows;         // outputs to store; the last panel may be partly used
  size_t columns;      // stored columns, a multiple of group
  size_t group;        // 32, 64, 128 or 256
  const float* table;  // [16]; read for tables only
  const uint8_t* x;    // q8 or bf16 rows (graph/q8_row.h, bf16_row.h), x_stride bytes apart
  size_t x_stride;
  size_t x_columns;  // logical, from which the offsets within a row follow
  size_t tokens;
  const float* bias;  // [rows] or null
  float* y;           // [tokens][rows], y_stride floats apart
  size_t y_stride;
};

// The same with panels that were expanded before. values: bytes in the order of tile::byte_in_panel for int8;
// bfloat16 values in the order of tile::bf16_in_panel applied to tile::bf16_position for bf16. Every panel
// has scales, and with zero points or minimums these, [groups][16] f32.
struct ExpandedPanel {
  uint8_t* values;
  float* scales;
  float* offsets;  // zero points or minimums; null without
};
struct ExpandedProduct {
  GroupForm form;
  const uint8_t* values;
  size_t values_stride;  // bytes from panel to panel
  const float* scales;
  const float* offsets;  // null without zero points or minimums
  size_t scales_stride;  // floats from panel to panel, of scales and of offsets
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
