#include "engine/chat_template/literals.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "engine/chat_template/characters.h"
#include "engine/chat_template/lexer.h"

namespace tessera::jinja {

namespace {

// Reads up to `most` digits of a base from `position`, which becomes the position after them.
uint32_t read_digits(std::string_view text, size_t& position, size_t most, int base) {
  uint32_t number = 0;
  const char* begin = text.data() + position;
  const char* end = begin + std::min(most, text.size() - position);
  const auto [stop, error] = std::from_chars(begin, end, number, base);
  position += static_cast<size_t>(stop - begin);
  return number;
}

std::string without_underscores(std::string_view text) {
  std::string plain(text);
  plain.erase(std::remove(plain.begin(), plain.end(), '_'), plain.end());
  return plain;
}

}  // namespace

std::string decode_string(std::string_view quoted, uint32_t line) {
  const std::string_view text = quoted.substr(1, quoted.size() - 2);
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const char c = text[position++];
    if (c != '\\' || position == text.size()) {
      decoded += c;
      continue;
    }
    const char escape = text[position++];
    static constexpr std::string_view letters = "abfnrtv\\'\"\n";
    static constexpr std::string_view meanings = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t found = letters.find(escape); found != std::string_view::npos) {
      if (found < meanings.size()) decoded += meanings[found];  // an escaped line end is dropped
    } else if (escape >= '0' && escape <= '7') {
      --position;
      append_utf8(decoded, read_digits(text, position, 3, 8));
    } else if (escape == 'x' || escape == 'u' || escape == 'U') {
      const size_t wanted = escape == 'x' ? 2 : (escape == 'u' ? 4 : 8);
      const size_t start = position;
      const uint32_t code = read_digits(text, position, wanted, 16);
      if (position - start != wanted || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
        fail_at_line(
            line, fmt::format("'\\{}{}' in a string is not a character", escape, text.substr(start, wanted)));
      }
      append_utf8(decoded, code);
    } else if (escape == 'N') {
      fail_at_line(line, "'\\N' (a character by its name) is not supported in strings");
    } else {
      decoded += c;
      decoded += escape;
    }
  }
  return decoded;
}

std::optional<int64_t> parse_integer(std::string_view text) {
  std::string plain = without_underscores(text);
  int base = 10;
  size_t start = 0;
  if (plain.size() > 2 && plain[0] == '0') {
    const char mark = plain[1];
    base = mark == 'x' || mark == 'X'
               ? 16
               : (mark == 'o' || mark == 'O' ? 8 : (mark == 'b' || mark == 'B' ? 2 : 10));
    if (base != 10) start = 2;
  }
  int64_t integer = 0;
  const char* end = plain.data() + plain.size();
  const auto [stop, error] = std::from_chars(plain.data() + start, end, integer, base);
  if (error != std::errc() || stop != end || plain[start] == '-') return std::nullopt;
  return integer;
}

std::optional<double> parse_number(std::string_view text) {
  const std::string plain = without_underscores(text);
  double number = 0;
  const char* end = plain.data() + plain.size();
  const auto [stop, error] = std::from_chars(plain.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

}  // namespace tessera::jinja
