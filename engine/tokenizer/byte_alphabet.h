// The characters that represent bytes in the files of byte-level BPE vocabularies: bytes that are printable
// in Latin-1 are represented by that character, the other 68 by U+0100 … U+0143.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

// The code point that represents a byte.
uint32_t byte_character(unsigned char byte);
// The byte that a code point represents; nothing for all other characters.
std::optional<unsigned char> character_byte(uint32_t codepoint);
// The bytes that a piece of a vocabulary file represents; nothing when one of its characters represents none.
std::optional<std::string> bytes_of_piece(std::string_view piece);

}  // namespace tessera
