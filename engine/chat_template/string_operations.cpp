#include "engine/chat_template/string_operations.h"

#include <fmt/format.h>

#include "engine/chat_template/characters.h"
#include "engine/chat_template/operators.h"

namespace tessera::jinja {

Value strip(Budget& budget, const String& string, const Value* characters, Side side) {
  std::string_view text = string.text;
  budget.spend_bytes(text.size());
  if (characters == nullptr || characters->is_none()) {
    if (side != Side::right) text.remove_prefix(leading_space(text));
    if (side != Side::left) text.remove_suffix(trailing_space(text));
    return make_part(budget, string, text);
  }
  const String* set = characters->string();
  if (set == nullptr) fail(fmt::format("characters to strip are a string, found {}", described(*characters)));
  const std::string& unwanted = set->text;
  const auto is_unwanted = [&](size_t position, const Character& found) {
    budget.spend_bytes(unwanted.size());
    return unwanted.find(text.substr(position, found.bytes)) != std::string::npos;
  };
  size_t begin = 0;
  size_t end = text.size();
  while (side != Side::right && begin < end) {
    const Character next = character_at(text, begin);
    if (!is_unwanted(begin, next)) break;
    begin += next.bytes;
  }
  while (side != Side::left && end > begin) {
    const Character last = character_before(text, end);
    if (!is_unwanted(end - last.bytes, last)) break;
    end -= last.bytes;
  }
  return make_part(budget, string, text.substr(begin, end - begin));
}

Value replace(Budget& budget, const String& string, std::string_view wanted, const String& replacement,
              int64_t count) {
  const std::string_view text = string.text;
  spend_search(budget, text.size(), wanted.size());
  uint64_t left = count < 0 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(count);
  TextBuilder result(budget);
  size_t position = 0;
  if (wanted.empty()) {
    for (; left > 0; --left) {
      result.append(replacement);
      if (position >= text.size()) break;
      const size_t bytes = character_at(text, position).bytes;
      result.append_part(string, text.substr(position, bytes));
      position += bytes;
    }
  } else {
    for (; left > 0; --left) {
      const size_t found = text.find(wanted, position);
      if (found == std::string_view::npos) break;
      result.append_part(string, text.substr(position, found - position));
      result.append(replacement);
      position = found + wanted.size();
    }
  }
  result.append_part(string, text.substr(position));
  return std::move(result).value();
}

Value pad(Budget& budget, const String& string, int64_t width, std::string_view fill, Padding padding) {
  budget.spend_bytes(string.text.size());
  const size_t size = count_characters(string.text);
  const size_t missing =
      width > 0 && static_cast<size_t>(width) > size ? static_cast<size_t>(width) - size : 0;
  // Of an odd number, str.center puts more on the left where the width is odd too.
  const size_t half = missing / 2 + (missing & static_cast<size_t>(width) & 1);
  const size_t before = padding == Padding::left ? missing : padding == Padding::both ? half : 0;
  budget.require(missing);
  TextBuilder text(budget);
  for (size_t i = 0; i < before; ++i) text.append(fill);
  text.append(string);
  for (size_t i = before; i < missing; ++i) text.append(fill);
  return std::move(text).value();
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    size_t end = position + next.bytes;
    const bool line_end = (next.code >= 0x0A && next.code <= 0x0D) ||
                          (next.code >= 0x1C && next.code <= 0x1E) || next.code == 0x85 ||
                          next.code == 0x2028 || next.code == 0x2029;
    if (line_end) {
      if (next.code == '\r' && end < text.size() && text[end] == '\n') ++end;
      lines.push_back(text.substr(start, (keep_ends ? end : position) - start));
      start = end;
    }
    position = end;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace tessera::jinja
