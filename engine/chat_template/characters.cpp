#include "engine/chat_template/characters.h"

#include <utf8proc.h>

#include <algorithm>

#include "engine/chat_template/character_tables.h"

namespace tessera::jinja {

namespace {

utf8proc_category_t category(uint32_t code) {
  if (code > 0x10FFFF) return UTF8PROC_CATEGORY_CN;
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

}  // namespace

Character character_at(std::string_view text, size_t position) {
  const auto first = static_cast<unsigned char>(text[position]);
  if (first < 0x80) return {first, 1};
  const size_t remaining = std::min<size_t>(text.size() - position, 4);
  utf8proc_int32_t code = 0;
  const utf8proc_ssize_t bytes =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + position),
                       static_cast<utf8proc_ssize_t>(remaining), &code);
  if (bytes <= 0) return {};
  return {static_cast<uint32_t>(code), static_cast<size_t>(bytes)};
}

Character character_before(std::string_view text, size_t position) {
  const size_t most = std::min<size_t>(position, 4);
  for (size_t bytes = 1; bytes <= most; ++bytes) {
    const auto lead = static_cast<unsigned char>(text[position - bytes]);
    if ((lead & 0xC0) == 0x80) continue;
    const Character found = character_at(text.substr(0, position), position - bytes);
    if (found.bytes == bytes) return found;
    break;
  }
  return {};
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t position = 0; position < text.size(); position += character_at(text, position).bytes) ++count;
  return count;
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t position = 0;
  for (; index > 0 && position < text.size(); --index) position += character_at(text, position).bytes;
  return position;
}

void append_utf8(std::string& text, uint32_t code) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

// The characters for which Python's str.isspace is true.
bool is_space(uint32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_cased(uint32_t code) { return is_upper(code) || is_lower(code) || is_title(code); }

bool is_upper(uint32_t code) { return category(code) == UTF8PROC_CATEGORY_LU || is_listed_upper(code); }

bool is_lower(uint32_t code) { return category(code) == UTF8PROC_CATEGORY_LL || is_listed_lower(code); }

bool is_title(uint32_t code) { return category(code) == UTF8PROC_CATEGORY_LT; }

bool is_letter(uint32_t code) {
  const utf8proc_category_t kind = category(code);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(uint32_t code) { return category(code) == UTF8PROC_CATEGORY_ND; }

bool is_digit(uint32_t code) { return is_decimal(code) || is_listed_digit(code); }

bool is_numeric(uint32_t code) {
  const utf8proc_category_t kind = category(code);
  return (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO) || is_listed_numeral(code);
}

bool is_printable(uint32_t code) {
  switch (category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return code == ' ';
    default:
      return true;
  }
}

size_t leading_space(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    const Character next = character_at(text, position);
    if (!is_space(next.code)) break;
    position += next.bytes;
  }
  return position;
}

size_t trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const Character last = character_before(text, end);
    if (!is_space(last.code)) break;
    end -= last.bytes;
  }
  return text.size() - end;
}

namespace {

// Whether no cased character follows (or, backwards, precedes) a place, marks and the like aside.
bool word_ends(std::string_view text, size_t position) {
  while (position < text.size()) {
    const Character next = character_at(text, position);
    if (!is_ignored_by_case(next.code)) return !is_cased(next.code);
    position += next.bytes;
  }
  return true;
}

bool word_begins(std::string_view text, size_t position) {
  while (position > 0) {
    const Character last = character_before(text, position);
    if (!is_ignored_by_case(last.code)) return !is_cased(last.code);
    position -= last.bytes;
  }
  return true;
}

void append_lower(std::string& changed, std::string_view text, size_t position, const Character& next) {
  constexpr uint32_t kCapitalSigma = 0x3A3;
  constexpr uint32_t kFinalSigma = 0x3C2;
  constexpr uint32_t kDottedI = 0x130;
  if (next.code == kCapitalSigma && !word_begins(text, position) && word_ends(text, position + next.bytes))
    return append_utf8(changed, kFinalSigma);
  if (next.code == kDottedI) {
    changed += "i\xcc\x87";
    return;
  }
  append_utf8(changed, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(next.code))));
}

void append_upper(std::string& changed, uint32_t code, bool as_title) {
  const std::string_view listed = as_title ? listed_title_text(code) : listed_upper_text(code);
  if (!listed.empty()) {
    changed += listed;
    return;
  }
  const auto character = static_cast<utf8proc_int32_t>(code);
  append_utf8(changed,
              static_cast<uint32_t>(as_title ? utf8proc_totitle(character) : utf8proc_toupper(character)));
}

}  // namespace

std::string change_case(std::string_view text, Case wanted) {
  std::string changed;
  changed.reserve(text.size());
  bool inside_word = false;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    if (next.code == kNoCharacter) {
      changed += text[position];
      inside_word = wanted == Case::capitalize;
    } else {
      const bool begins = (wanted == Case::title || wanted == Case::capitalize) && !inside_word;
      if (wanted == Case::upper || begins) {
        append_upper(changed, next.code, begins);
      } else if (wanted == Case::swap && is_upper(next.code)) {
        append_lower(changed, text, position, next);
      } else if (wanted == Case::swap) {
        if (is_lower(next.code)) {
          append_upper(changed, next.code, false);
        } else {
          append_utf8(changed, next.code);
        }
      } else {
        append_lower(changed, text, position, next);
      }
      inside_word = wanted == Case::capitalize || is_cased(next.code);
    }
    position += next.bytes;
  }
  return changed;
}

}  // namespace tessera::jinja
