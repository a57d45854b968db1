// Layout of weights in device memory. Integer panels keep the file's sizes and order of units
// (gguf-like-format/ tile_layout.h) but the codes inside a unit are permuted, so that the 16-byte loads of a
// warp are contiguous and give each lane exactly its operand of mma.m16n8k32. Float matrices become plain
// rows. All functions are constexpr, for host and device.
//
// A unit is 512 bytes of a panel: 64 columns of 4-bit codes, or 32 columns of bytes. Lane 4 g + p of a warp
// (g = 0..7, p = 0..3) owns the 16 bytes at 16 (4 g + p). With bytes, its words are the four registers of
// the operand A: rows g and g + 8 of columns 4 p ... 4 p + 3, then of columns 16 + 4 p ... 16 + 4 p + 3. With
// 4-bit codes, words 0 and 1 are rows g and g + 8 of the unit's first 32 columns and words 2 and 3 of its
// second: the low nibbles are columns 4 p ... 4 p + 3, the high ones columns 16 + 4 p ... So in both cases
// the columns of a product are in their natural order, and activations are read as they lie.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf-like-format/tile_layout.h"

namespace tessera::cuda {

enum class WeightFormat : uint8_t { f32, f16, bf16, w8a8, w4a8, w4a8_g128 };

constexpr bool is_integer(WeightFormat format) { return format >= WeightFormat::w8a8; }
constexpr bool has_nibbles(WeightFormat format) { return format >= WeightFormat::w4a8; }

namespace layout {

inline constexpr uint32_t kUnitBytes = 512;
inline constexpr uint32_t kUnitWords = kUnitBytes / 4;
inline constexpr uint32_t kGroupUnits = 2;  // of w4a8-g128, followed by 32 bytes of s1 and a

constexpr uint32_t unit_columns(WeightFormat format) { return has_nibbles(format) ? 64 : 32; }

// Bytes from the panel's start to a unit.
constexpr size_t unit_byte(WeightFormat format, size_t unit) {
  if (format != WeightFormat::w4a8_g128) return unit * kUnitBytes;
  return unit / kGroupUnits * tile::kGroupBytes + unit % kGroupUnits * kUnitBytes;
}

// Which words of the file (line * 16 + row) make a word of a unit. With bytes it is the word `low`. With
// 4-bit codes the upper or lower nibbles of `low` become its lower nibbles, and those of `high` its upper
// ones.
struct WordSource {
  uint32_t low;
  uint32_t high;
  bool upper;
};
constexpr WordSource source_of(bool nibbles, uint32_t word) {
  const uint32_t lane = word / 4;
  const uint32_t place = lane % 4;
  const uint32_t row = lane / 4 + 8 * (word % 2);
  const uint32_t half = word / 2 % 2;
  if (!nibbles) return {(4 * half + place) * 16 + row, 0, false};
  const uint32_t line = 4 * half + place / 2;
  return {line * 16 + row, (line + 2) * 16 + row, place % 2 == 1};
}
constexpr uint32_t merged_nibbles(uint32_t low, uint32_t high, bool upper) {
  constexpr uint32_t kLow = 0x0f0f0f0fu;
  return upper ? (low >> 4 & kLow) | (high & ~kLow) : (low & kLow) | (high & kLow) << 4;
}

// s1 and a of a group of w4a8-g128: word g holds s1[g], s1[g + 8], a[g], a[g + 8]. Bytes from the group's
// start.
inline constexpr uint32_t kParameters = kGroupUnits * kUnitBytes;
constexpr uint32_t scale_byte(uint32_t row) { return kParameters + 4 * (row % 8) + row / 8; }
constexpr uint32_t offset_byte(uint32_t row) { return scale_byte(row) + 2; }
// The file's byte, from the group's start, that belongs at byte kParameters + i.
constexpr uint32_t source_parameter(uint32_t i) {
  const uint32_t row = i / 4 + 8 * (i % 2);
  return kParameters + row + (i / 2 % 2) * static_cast<uint32_t>(tile::kPanelRows);
}

// Place of the code of (row 0..15, column) inside a panel.
struct CodePlace {
  size_t byte;
  bool high;  // nibble
};
constexpr CodePlace code_in_panel(WeightFormat format, uint32_t row, uint32_t column) {
  const uint32_t columns = unit_columns(format);
  const bool nibbles = has_nibbles(format);
  const uint32_t inside = column % 32;
  const uint32_t half = nibbles ? column % columns / 32 : inside / 16;
  const uint32_t word = 4 * (4 * (row % 8) + inside % 16 / 4) + 2 * half + row / 8;
  return {unit_byte(format, column / columns) + 4 * word + inside % 4, nibbles && inside >= 16};
}

// Elements from one row of a float matrix to the next, a multiple of 64: kernels copy 64 columns at a time.
constexpr size_t float_row_elements(size_t columns) { return tile::round_up(columns, 64); }

}  // namespace layout

}  // namespace tessera::cuda
