// Layout of table weights (schemes with scales per group: lut…, int4…, int8…, int4m… and int4k…) in device
// memory, as constexpr functions for host and device.
//
// A panel of 16 rows is a row of blocks of 128 columns, bits * 256 bytes each, then the levels of groups: f16
// scales and, with zero points or minimums, f16 offsets. Columns are padded to whole blocks with weights and
// scales of 0. A block is four steps of 32 columns. Lane 4 g + p of a warp (g = 0..7, p = 0..3) has rows g
// and g + 8 and, of every step, columns 8 p … 8 p + 7: the first four as columns 4 p … of the A operand of
// mma.m16n8k32, the others as columns 16 + 4 p …, as in weight_layout.h. The eight codes of one row and step
// make a nibble word, nibble j for column 8 p + j, so that either half of it is a selector for prmt. Nibble
// word 2 s + h is step s of row g + 8 h.
//
// A lane's eight nibble words are stored in 2 * bits words. 4 bits: unchanged. 2 bits: nibble words 2 i and 2
// i + 1 are the low and high halves of the nibbles of stored word i. 3 bits: nibble words 4 i … 4 i + 2 are
// the three low bits of the nibbles of stored words 3 i … 3 i + 2, whose fourth bits are bits 0 … 2 of nibble
// word 4 i + 3. 8 bits: not nibbles but bytes, each the code less 128; the first four of nibble word i are
// stored word 2 i, the others stored word 2 i + 1.
//
// int4k has nested levels: for every group 16 bytes of scales and 16 of minimums, of which rows g and g + 8
// are the bytes of word g in the order scale, scale, minimum, minimum; then for every 256 columns f16 d and
// f16 dmin.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf-like-format/tile_layout.h"

namespace tessera::cuda::table_layout {

inline constexpr uint32_t kBlockColumns = 128;
inline constexpr uint32_t kStepColumns = 32;
inline constexpr uint32_t kSteps = kBlockColumns / kStepColumns;
inline constexpr uint32_t kGroupBytes = 2 * tile::kPanelRows;  // of scales, or of offsets, or of both nested
inline constexpr uint32_t kNestedBlocks = tile::kNestedBlock / kBlockColumns;  // that share d and dmin
inline constexpr uint32_t kNestedFactorBytes = 4 * tile::kPanelRows;           // d and dmin

constexpr uint32_t block_bytes(uint32_t bits) { return bits * 256; }
constexpr size_t device_columns(size_t stored) { return tile::round_up(stored, kBlockColumns); }

// Byte offset in the block of a lane's stored word. Four stored words are 16 bytes a lane, and those of all
// lanes lie side by side; with 3 bits the last two words are 8 bytes a lane.
constexpr uint32_t word_byte(uint32_t bits, uint32_t lane, uint32_t word) {
  const uint32_t piece_bytes = bits == 3 && word >= 4 ? 8 : 16;
  return word / 4 * 512 + lane * piece_bytes + word % 4 * 4;
}

// The lane and its stored word at a block's 32-bit word `index`: the inverse of word_byte.
struct LaneWord {
  uint32_t lane;
  uint32_t word;
};
constexpr LaneWord lane_word(uint32_t bits, uint32_t index) {
  if (bits == 3 && index >= 128) return {(index - 128) / 2, 4 + index % 2};
  return {index % 128 / 4, index / 128 * 4 + index % 4};
}

// The lane that has the code of (row 0..15, column 0..127) of a block, and its place among the lane's nibble
// words.
struct LaneCode {
  uint32_t lane;
  uint32_t nibble_word;
  uint32_t nibble;
};
constexpr LaneCode lane_code(uint32_t row, uint32_t column) {
  return {4 * (row % 8) + column % kStepColumns / 8, 2 * (column / kStepColumns) + row / 8, column % 8};
}
constexpr uint32_t code_row(uint32_t lane, uint32_t nibble_word) { return lane / 4 + 8 * (nibble_word % 2); }
constexpr uint32_t code_column(uint32_t lane, uint32_t nibble_word, uint32_t nibble) {
  return nibble_word / 2 * kStepColumns + 8 * (lane % 4) + nibble;
}

// Place of bit `bit` of a nibble among the lane's stored words.
struct BitPlace {
  uint32_t word;
  uint32_t shift;
};
constexpr BitPlace bit_place(uint32_t bits, uint32_t nibble_word, uint32_t nibble, uint32_t bit) {
  if (bits == 8) return {2 * nibble_word + nibble / 4, 8 * (nibble % 4) + bit};
  if (bits == 4) return {nibble_word, 4 * nibble + bit};
  if (bits == 2) return {nibble_word / 2, 4 * nibble + 2 * (nibble_word % 2) + bit};
  const uint32_t first = nibble_word / 4 * 3;
  if (nibble_word % 4 < 3) return {first + nibble_word % 4, 4 * nibble + bit};
  return {first + bit, 4 * nibble + 3};
}

// Byte offsets in the panel of the scales of a group, and of its offsets. In both, rows g and g + 8 are
// the halves of word g. `columns` is the padded number, device_columns.
constexpr size_t scales_byte(uint32_t bits, size_t columns, size_t group) {
  return columns / kBlockColumns * block_bytes(bits) + group * kGroupBytes;
}
constexpr size_t offsets_byte(uint32_t bits, size_t columns, size_t group_columns, size_t group) {
  return scales_byte(bits, columns, columns / group_columns + group);
}
// Of the f16 d of 256 columns, which dmin follows, where levels are nested.
constexpr size_t nested_factors_byte(size_t columns, size_t block) {
  return scales_byte(4, columns, columns / tile::kNestedGroup) + block * kNestedFactorBytes;
}
constexpr uint32_t half_of_row(uint32_t row) { return 2 * (row % 8) + row / 8; }

constexpr size_t panel_bytes(uint32_t bits, size_t columns, size_t group_columns, bool offsets) {
  return scales_byte(bits, columns, (offsets ? 2 : 1) * (columns / group_columns));
}
constexpr size_t nested_panel_bytes(size_t columns) {
  return nested_factors_byte(columns, columns / tile::kNestedBlock);
}

// The table of a matrix in the forms that kernels read; without one the values are the codes themselves.
// Codes of 8 bits have no use for it.
struct Entries {
  float values[16];
  uint32_t int8[4];       // 127 * value, rounded, or the code: signed bytes
  uint32_t bf16_low[4];   // low bytes of the values as bfloat16
  uint32_t bf16_high[4];  // high bytes
};

}  // namespace tessera::cuda::table_layout
