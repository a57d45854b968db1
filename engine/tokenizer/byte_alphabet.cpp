#include "engine/tokenizer/byte_alphabet.h"

#include <array>

#include "engine/tokenizer/utf8.h"

namespace tessera {

namespace {

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> character{};
  std::array<int16_t, 324> byte{};
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.byte) byte = -1;
  uint16_t next = 256;
  for (uint16_t byte = 0; byte < 256; ++byte) {
    const uint16_t character = stands_for_itself(byte) ? byte : next++;
    alphabet.character[byte] = character;
    alphabet.byte[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();
static_assert(kAlphabet.character[' '] == 0x120 && kAlphabet.character[0xAD] == 323,
              "68 bytes need stand-ins");

}  // namespace

uint32_t byte_character(unsigned char byte) { return kAlphabet.character[byte]; }

std::optional<unsigned char> character_byte(uint32_t codepoint) {
  if (codepoint >= kAlphabet.byte.size() || kAlphabet.byte[codepoint] < 0) return std::nullopt;
  return static_cast<unsigned char>(kAlphabet.byte[codepoint]);
}

std::optional<std::string> bytes_of_piece(std::string_view piece) {
  std::string bytes;
  for (size_t at = 0; at < piece.size();) {
    const Utf8Character character = read_utf8(piece, at);
    const auto byte = character_byte(character.codepoint);
    if (character.state != Utf8Character::State::complete || !byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
    at += character.length;
  }
  return bytes;
}

}  // namespace tessera
