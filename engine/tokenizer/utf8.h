// Reads UTF-8 one character at a time and distinguishes malformed sequences from unfinished ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

struct Utf8Character {
  enum class State : uint8_t {
    complete,   // codepoint is a Unicode scalar value
    malformed,  // these bytes can never begin or continue a character
    unfinished  // the text ends inside a character that may still be completed
  };
  uint32_t codepoint = 0xFFFD;
  uint32_t length = 1;  // in bytes, at least 1; that of the longest valid prefix when not complete
  State state = State::malformed;
};

// The character at byte `at` (< text.size()), by the table of well-formed byte sequences of the Unicode
// standard (chapter 3): no overlong forms, no surrogates, nothing above U+10FFFF.
inline Utf8Character read_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t index) {
    return static_cast<uint32_t>(static_cast<unsigned char>(text[index]));
  };
  const uint32_t lead = byte(at);
  if (lead < 0x80) return {lead, 1, Utf8Character::State::complete};
  uint32_t more = 0;
  uint32_t codepoint = 0;
  uint32_t low = 0x80;  // range of the byte after the lead
  uint32_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    more = 1;
    codepoint = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    more = 2;
    codepoint = lead & 0x0F;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    more = 3;
    codepoint = lead & 0x07;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {};
  }
  for (uint32_t i = 1; i <= more; ++i) {
    if (at + i >= text.size()) return {0xFFFD, i, Utf8Character::State::unfinished};
    const uint32_t next = byte(at + i);
    if (next < low || next > high) return {0xFFFD, i, Utf8Character::State::malformed};
    codepoint = codepoint << 6 | (next & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {codepoint, more + 1, Utf8Character::State::complete};
}

// Whether the whole text is well-formed UTF-8.
inline bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = read_utf8(text, at);
    if (character.state != Utf8Character::State::complete) return false;
    at += character.length;
  }
  return true;
}

// Appends a Unicode scalar value as UTF-8.
inline void append_utf8(std::string& text, uint32_t codepoint) {
  const auto put = [&](uint32_t value) { text += static_cast<char>(static_cast<unsigned char>(value)); };
  if (codepoint < 0x80) {
    put(codepoint);
  } else if (codepoint < 0x800) {
    put(0xC0 | codepoint >> 6);
    put(0x80 | (codepoint & 0x3F));
  } else if (codepoint < 0x10000) {
    put(0xE0 | codepoint >> 12);
    put(0x80 | (codepoint >> 6 & 0x3F));
    put(0x80 | (codepoint & 0x3F));
  } else {
    put(0xF0 | codepoint >> 18);
    put(0x80 | (codepoint >> 12 & 0x3F));
    put(0x80 | (codepoint >> 6 & 0x3F));
    put(0x80 | (codepoint & 0x3F));
  }
}

}  // namespace tessera
