// The characters (code points) of UTF-8 text, which is what lengths and indexes of Python strings count. A
// byte that is not part of valid UTF-8 counts as one character and is never changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::jinja {

inline constexpr uint32_t kNoCharacter = 0xFFFFFFFFu;

struct Character {
  uint32_t code = kNoCharacter;  // Unicode code point, or kNoCharacter for a malformed byte
  size_t bytes = 1;              // its length in the text
};

// The character that begins at byte `position` < text.size().
Character character_at(std::string_view text, size_t position);
// The character that ends before byte `position`, which is in 1 … text.size().
Character character_before(std::string_view text, size_t position);
size_t count_characters(std::string_view text);
// The byte at which character number `index` (from 0) begins; text.size() when there are fewer characters.
size_t byte_offset(std::string_view text, size_t index);
// code: a Unicode scalar value.
void append_utf8(std::string& text, uint32_t code);

// Classes of characters as Python's str.isspace and so on have them; kNoCharacter is in none of them.
bool is_space(uint32_t code);
bool is_cased(uint32_t code);
bool is_upper(uint32_t code);
bool is_lower(uint32_t code);
bool is_title(uint32_t code);
bool is_letter(uint32_t code);
bool is_decimal(uint32_t code);
bool is_digit(uint32_t code);    // superscripts and the like too
bool is_numeric(uint32_t code);  // fractions and other numerals too
bool is_printable(uint32_t code);

// The number of bytes of white space at the start and at the end of a text.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

// No change of case makes a text longer than this many times its bytes.
inline constexpr size_t kMostCaseGrowth = 3;
enum class Case : uint8_t { upper, lower, title, capitalize, swap };
// As Python's str.upper and so on: a character may become several, at most three (ß becomes SS), and a sigma
// that ends a word another. title: every run of cased characters begins with a capital letter; capitalize:
// only the text does; all others become lower case.
std::string change_case(std::string_view text, Case wanted);

}  // namespace tessera::jinja
