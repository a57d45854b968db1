// What Unicode says of characters beyond their general categories, in tables that
// tools/make_character_tables.py writes: values of numerals, cased characters that are no letters, and case
// mappings to several characters.
#pragma once

#include <cstdint>
#include <string_view>

namespace tessera::jinja {

// Digits and numerals beyond the categories Nd and Nd, Nl, No.
bool is_listed_digit(uint32_t code);
bool is_listed_numeral(uint32_t code);
// Lower and upper case characters beyond the categories Ll and Lu.
bool is_listed_lower(uint32_t code);
bool is_listed_upper(uint32_t code);
// Marks, apostrophes and the like, which are no end of a word where case is changed.
bool is_ignored_by_case(uint32_t code);
// What a character becomes in upper case and at the beginning of a title where that is several characters, in
// UTF-8; empty for all others.
std::string_view listed_upper_text(uint32_t code);
std::string_view listed_title_text(uint32_t code);

}  // namespace tessera::jinja
