// Moves the codes of one row between a plain byte array and the lines of a unit of 32 columns, and f16 levels
// in and out of a panel: what all schemes with scales per group share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::unit_codes {

static_assert(tile::code_in_unit(3, 5, 30).byte == tile::code_in_unit(3, 5, 28).byte + 2 &&
                  tile::code_in_unit(3, 5, 30).high_byte == tile::code_in_unit(3, 5, 28).high_byte + 2,
              "a row's 4 codes of a quad are 4 adjacent bytes at one shift");

inline uint32_t load_word(std::span<const std::byte> lines, size_t at) {
  uint32_t word = 0;
  std::memcpy(&word, &lines[at], 4);
  return word;
}

inline void add_bits(std::span<std::byte> lines, size_t at, uint32_t bits) {
  const uint32_t word = load_word(lines, at) | bits;
  std::memcpy(&lines[at], &word, 4);
}

constexpr uint32_t in_every_byte(uint32_t byte) { return byte * 0x01010101u; }

// codes: those of one unit, a byte each; lines: bits * 64 bytes, of which this row's are overwritten.
inline void pack(size_t bits, std::span<const uint8_t> codes, size_t row, std::span<std::byte> lines) {
  const uint32_t nothing = 0;
  for (size_t line = 0; line < bits; ++line)
    std::memcpy(&lines[line * tile::kLineBytes + 4 * row], &nothing, 4);
  for (size_t column = 0; column < tile::kTableUnitColumns; column += 4) {
    const tile::CodeBits place = tile::code_in_unit(bits, row, column);
    uint32_t quad = 0;
    std::memcpy(&quad, &codes[column], 4);
    add_bits(lines, place.byte, (quad & in_every_byte((1u << place.low) - 1)) << place.shift);
    if (place.low < bits)
      add_bits(lines, place.high_byte, (quad >> place.low & in_every_byte(1)) << place.high_shift);
  }
}

inline void unpack(size_t bits, std::span<const std::byte> lines, size_t row, std::span<uint8_t> codes) {
  for (size_t column = 0; column < tile::kTableUnitColumns; column += 4) {
    const tile::CodeBits place = tile::code_in_unit(bits, row, column);
    uint32_t quad = load_word(lines, place.byte) >> place.shift & in_every_byte((1u << place.low) - 1);
    if (place.low < bits)
      quad |= (load_word(lines, place.high_byte) >> place.high_shift & in_every_byte(1)) << place.low;
    std::memcpy(&codes[column], &quad, 4);
  }
}

inline void store_half(std::span<std::byte> panel, size_t at, float value) {
  const uint16_t half = f32_to_f16(value);
  std::memcpy(&panel[at], &half, 2);
}

inline float load_half(std::span<const std::byte> panel, size_t at) {
  uint16_t half = 0;
  std::memcpy(&half, &panel[at], 2);
  return f16_to_f32(half);
}

}  // namespace tessera::unit_codes
