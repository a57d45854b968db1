// Moves the 4-bit codes of one row between a plain byte array and the lines of a tile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "gguf-like-format/tile_layout.h"

namespace tessera::nibble_lines {

static_assert(tile::nibble_in_line(3, 2).byte == tile::nibble_in_line(3, 0).byte + 2 &&
                  tile::nibble_in_line(3, 6).byte == tile::nibble_in_line(3, 2).byte &&
                  !tile::nibble_in_line(3, 3).high && tile::nibble_in_line(3, 4).high,
              "a row's 8 codes of a line are 4 adjacent bytes, columns 0-3 low and 4-7 high");

// codes: one byte each, a multiple of 8 of them; lines: that many columns of 16 rows.
inline void pack_row(std::span<const uint8_t> codes, size_t row, std::span<std::byte> lines) {
  for (size_t column = 0; column < codes.size(); column += 8) {
    uint32_t low = 0;
    uint32_t high = 0;
    std::memcpy(&low, &codes[column], 4);
    std::memcpy(&high, &codes[column + 4], 4);
    const uint32_t both = low | (high << 4);
    std::memcpy(&lines[tile::nibble_in_panel(row, column).byte], &both, 4);
  }
}

inline void unpack_row(std::span<const std::byte> lines, size_t row, std::span<uint8_t> codes) {
  for (size_t column = 0; column < codes.size(); column += 8) {
    uint32_t both = 0;
    std::memcpy(&both, &lines[tile::nibble_in_panel(row, column).byte], 4);
    const uint32_t low = both & 0x0f0f0f0fu;
    const uint32_t high = (both >> 4) & 0x0f0f0f0fu;
    std::memcpy(&codes[column], &low, 4);
    std::memcpy(&codes[column + 4], &high, 4);
  }
}

}  // namespace tessera::nibble_lines
