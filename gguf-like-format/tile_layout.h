// Where every weight sits inside a stored matrix: index maps shared by the packer, all backends and the
// tests. A matrix [N rows, K columns] is cut into panels of 16 rows; a panel is read strictly forward.
// Everything here is constexpr and free of dependencies so that device code can include it too.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::tile {

inline constexpr size_t kPanelRows = 16;
inline constexpr size_t kLineBytes = 64;
inline constexpr size_t kGroupColumns = 128;     // columns that share one s1/a pair in w4a8-g128
inline constexpr size_t kIntegerColumnPad = 64;  // w8a8 and w4a8 pad their columns to this

// Bytes of a progressive group of 16 rows: lines of 8 columns, then s1[16], then a[16].
constexpr size_t progressive_group_bytes(size_t group) { return group / 8 * kLineBytes + 2 * kPanelRows; }
inline constexpr size_t kGroupBytes = progressive_group_bytes(kGroupColumns);

static_assert(kGroupBytes == 1056,
              "a w4a8-g128 group of 16 rows is 1024 bytes of codes and 32 bytes of s1 and a");

constexpr size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// One 4-bit code: the byte that holds it and whether it is the high nibble.
struct Nibble {
  size_t byte;
  bool high;
};

// Code (row 0..15, column 0..7) inside one 64-byte line: byte 4r+j holds columns j (low) and j+4 (high).
constexpr Nibble nibble_in_line(size_t row, size_t column) { return {4 * row + column % 4, column % 8 >= 4}; }

// Code (row 0..15, any column) inside a panel without groups (w4a8): lines of 8 columns in order.
constexpr Nibble nibble_in_panel(size_t row, size_t column) {
  const Nibble n = nibble_in_line(row, column % 8);
  return {column / 8 * kLineBytes + n.byte, n.high};
}

// Code (row 0..15, any column) inside a panel of progressive groups, where s1 and a follow the columns of
// every group; the default is that of w4a8-g128.
constexpr Nibble nibble_in_grouped_panel(size_t row, size_t column, size_t group_columns = kGroupColumns) {
  const Nibble n = nibble_in_panel(row, column % group_columns);
  return {column / group_columns * progressive_group_bytes(group_columns) + n.byte, n.high};
}

// Byte offsets of s1 and a for (row, group) inside such a panel.
constexpr size_t group_scale_byte(size_t row, size_t group, size_t group_columns = kGroupColumns) {
  return group * progressive_group_bytes(group_columns) + group_columns / 8 * kLineBytes + row;
}
constexpr size_t group_offset_byte(size_t row, size_t group, size_t group_columns = kGroupColumns) {
  return group_scale_byte(row, group, group_columns) + kPanelRows;
}

// Byte (row, column) inside a panel of bytes (w8a8, and 4-bit panels after expansion): a 64-byte line is
// 16 rows x 4 columns with the 4 columns of one row adjacent, which is the operand shape of a 4-way byte dot
// product.
constexpr size_t byte_in_panel(size_t row, size_t column) {
  return column / 4 * kLineBytes + 4 * row + column % 4;
}

// Schemes with scales per group but int4k: a group of columns of a panel is its codes, 32 columns in
// bits * 64 bytes, then f16 scales[16], then with zero points or minimums f16 of these[16].
inline constexpr size_t kTableUnitColumns = 32;
inline constexpr size_t kTableBytes = 16 * 4;  // a matrix's table: f32[16]

constexpr size_t table_code_bytes(size_t bits, size_t group) {
  return group / kTableUnitColumns * bits * kLineBytes;
}
constexpr size_t table_group_bytes(size_t bits, size_t group, bool offsets) {
  return table_code_bytes(bits, group) + (offsets ? 4 : 2) * kPanelRows;
}

// Where the bits of one code lie: `low` bits at (byte, shift) and, where split, one more, the highest, at
// (high_byte, high_shift).
struct CodeBits {
  size_t byte;
  unsigned shift;
  unsigned low;
  size_t high_byte;
  unsigned high_shift;
};

// Code (row 0..15, column 0..31) inside the lines of one unit. Whatever the width, the 4 columns of a quad
// are adjacent bytes at one shift. 8 bits: as byte_in_panel. 4 bits: as nibble_in_panel. 2 bits: a line holds
// 16 columns, quad i at bits 2i. 3 bits: of 8 quads the first six lie two to a line, at bits 0 and 3; quad 6
// has its low bits at bits 6 and 7 of the first line and its high bit at bit 6 of the third, quad 7 at bits 6
// and 7 of the second line and bit 7 of the third. So no code leaves its byte lane.
constexpr CodeBits code_in_unit(size_t bits, size_t row, size_t column) {
  const size_t quad = column / 4;
  const size_t lane = 4 * row + column % 4;
  if (bits == 8) return {quad * kLineBytes + lane, 0, 8, 0, 0};
  if (bits == 4) return {quad / 2 * kLineBytes + lane, quad % 2 == 0 ? 0u : 4u, 4, 0, 0};
  if (bits == 2) return {quad / 4 * kLineBytes + lane, static_cast<unsigned>(2 * (quad % 4)), 2, 0, 0};
  if (quad < 6) return {quad / 2 * kLineBytes + lane, quad % 2 == 0 ? 0u : 3u, 3, 0, 0};
  return {(quad - 6) * kLineBytes + lane, 6, 2, 2 * kLineBytes + lane, static_cast<unsigned>(quad)};
}

// Byte of the first column of the unit that holds `column` (a column of the whole panel), and of the group's
// scale and zero point or minimum for one row, inside a panel. offsets: whether groups have either.
constexpr size_t table_unit_byte(size_t bits, size_t group, bool offsets, size_t column) {
  return column / group * table_group_bytes(bits, group, offsets) +
         column % group / kTableUnitColumns * bits * kLineBytes;
}
constexpr size_t table_scale_byte(size_t bits, size_t group, bool offsets, size_t row, size_t index) {
  return index * table_group_bytes(bits, group, offsets) + table_code_bytes(bits, group) + 2 * row;
}
constexpr size_t table_zero_byte(size_t bits, size_t group, size_t row, size_t index) {
  return table_scale_byte(bits, group, true, row, index) + 2 * kPanelRows;
}

// int4k: a block of 256 columns of a panel is its codes, 8 units as above, which are its groups, then f16
// d[16] and dmin[16], then u8 scales[8][16] and minimums[8][16], by group.
inline constexpr size_t kNestedGroup = 32;
inline constexpr size_t kNestedBlock = 256;
inline constexpr size_t kNestedCodeBytes = table_code_bytes(4, kNestedBlock);
inline constexpr size_t kNestedGroups = kNestedBlock / kNestedGroup;
inline constexpr size_t kNestedBlockBytes =
    kNestedCodeBytes + 4 * kPanelRows + 2 * kNestedGroups * kPanelRows;
static_assert(kNestedGroup == kTableUnitColumns && kNestedBlockBytes == 2368);

constexpr size_t nested_unit_byte(size_t column) {
  return column / kNestedBlock * kNestedBlockBytes +
         table_code_bytes(4, column % kNestedBlock / kNestedGroup * kNestedGroup);
}
// f16 d and dmin of (row, block).
constexpr size_t nested_scale_byte(size_t row, size_t block) {
  return block * kNestedBlockBytes + kNestedCodeBytes + 2 * row;
}
constexpr size_t nested_minimum_byte(size_t row, size_t block) {
  return nested_scale_byte(row, block) + 2 * kPanelRows;
}
// u8 scale and minimum of (row, group); groups are counted through all blocks.
constexpr size_t nested_group_scale_byte(size_t row, size_t group) {
  return group / kNestedGroups * kNestedBlockBytes + kNestedCodeBytes + 4 * kPanelRows +
         group % kNestedGroups * kPanelRows + row;
}
constexpr size_t nested_group_minimum_byte(size_t row, size_t group) {
  return nested_group_scale_byte(row, group) + kNestedGroups * kPanelRows;
}

// Position of a column within a row of bfloat16 activations, and within an expanded bf16 panel of a table
// scheme: columns 0 2 1 3 of each quad, because the 16-bit halves of a dword of codes belong to columns two
// apart.
constexpr size_t bf16_position(size_t column) {
  const size_t in_quad = column % 4;
  return column - in_quad + (in_quad == 1 ? 2 : in_quad == 2 ? 1 : in_quad);
}

// Element index of (row, column) inside an f32 or f16 panel: 16 rows of one column are adjacent.
constexpr size_t element_in_panel(size_t row, size_t column) { return column * kPanelRows + row; }

// Element index of (row, column) inside a bf16 panel: 16 rows x 2 columns a line, the pair of one row
// adjacent.
constexpr size_t bf16_in_panel(size_t row, size_t column) {
  return column / 2 * (2 * kPanelRows) + 2 * row + column % 2;
}

}  // namespace tessera::tile
