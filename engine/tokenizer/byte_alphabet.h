// The printable stand-ins for bytes in the files of byte-level BPE vocabularies: printable Latin-1 characters
// stand for themselves, the other 68 bytes for U+0100 and up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

uint32_t byte_character(unsigned char byte);                      // the code point that stands for a byte
std::optional<unsigned char> character_byte(uint32_t codepoint);  // and back; nothing for other characters
// The bytes a piece of a vocabulary file stands for; nothing when a character is outside the alphabet.
std::optional<std::string> bytes_of_piece(std::string_view piece);

}  // namespace tessera
