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
inline constexpr size_t kGroupBytes = 16 * kLineBytes + 2 * kPanelRows;  // 16 lines, then s1[16], then a[16]

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

// Code (row 0..15, any column) inside a w4a8-g128 panel, where s1 and a follow every 128 columns.
constexpr Nibble nibble_in_grouped_panel(size_t row, size_t column) {
  const Nibble n = nibble_in_panel(row, column % kGroupColumns);
  return {column / kGroupColumns * kGroupBytes + n.byte, n.high};
}

// Byte offsets of s1 and a for (row, group) inside a w4a8-g128 panel.
constexpr size_t group_scale_byte(size_t row, size_t group) {
  return group * kGroupBytes + 16 * kLineBytes + row;
}
constexpr size_t group_offset_byte(size_t row, size_t group) {
  return group_scale_byte(row, group) + kPanelRows;
}

// Byte (row, column) inside a panel of bytes (w8a8, and 4-bit panels after expansion): a 64-byte line is
// 16 rows x 4 columns with the 4 columns of one row adjacent, which is the operand shape of a 4-way byte dot
// product.
constexpr size_t byte_in_panel(size_t row, size_t column) {
  return column / 4 * kLineBytes + 4 * row + column % 4;
}

// Element index of (row, column) inside an f32 or f16 panel: 16 rows of one column are adjacent.
constexpr size_t element_in_panel(size_t row, size_t column) { return column * kPanelRows + row; }

// Element index of (row, column) inside a bf16 panel: 16 rows x 2 columns a line, the pair of one row
// adjacent.
constexpr size_t bf16_in_panel(size_t row, size_t column) {
  return column / 2 * (2 * kPanelRows) + 2 * row + column % 2;
}

}  // namespace tessera::tile
