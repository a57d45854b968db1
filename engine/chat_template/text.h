// Characters of UTF-8 text as Python strings count them. A byte that is not part of valid UTF-8 counts as one
// character and is kept as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::jinja {

inline constexpr uint32_t no_character = 0xFFFFFFFFu;

struct Character {
  uint32_t code = no_character;  // no_character: a malformed byte
  size_t bytes = 1;
};

Character character_at(std::string_view text, size_t position);      // position < text.size()
Character character_before(std::string_view text, size_t position);  // 0 < position <= text.size()
size_t count_characters(std::string_view text);
// The byte offset of character number `index`, text.size() when there are fewer.
size_t byte_offset(std::string_view text, size_t index);
void append_utf8(std::string& text, uint32_t code);

bool is_space(uint32_t code);
bool is_cased(uint32_t code);
bool is_upper(uint32_t code);
bool is_lower(uint32_t code);
bool is_letter(uint32_t code);
bool is_digit(uint32_t code);
bool is_printable(uint32_t code);

// Number of bytes of white space at the start or the end.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

enum class Case : uint8_t { upper, lower, title, capitalize };
// One-to-one case mapping (so ß stays ß). title: every run of letters starts with a capital;
// capitalize: only the first character does.
std::string change_case(std::string_view text, Case wanted);

}  // namespace tessera::jinja
