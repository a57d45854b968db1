#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/characters.h"
#include "engine/chat_template/format_text.h"
#include "engine/chat_template/operators.h"
#include "engine/chat_template/string_operations.h"

namespace tessera::jinja {

namespace {

using Object = const Value&;
using Given = const Arguments&;

std::string_view self(Object object) { return object.string()->text; }

template <Side side>
Value string_strip(Environment& environment, Object object, Given given) {
  return strip(environment.budget, *object.string(), given.find(0), side);
}

template <Case wanted>
Value string_case(Environment& environment, Object object, Given) {
  environment.budget.spend_bytes(self(object).size() * 4);
  environment.budget.require(self(object).size() * kMostCaseGrowth);
  return make_changed(environment.budget, *object.string(), change_case(self(object), wanted));
}

// The part of a string that methods such as find search: from their optional start to their optional end.
struct Window {
  std::string_view text;
  size_t first_character = 0;
  bool valid = true;  // false when the start lies after the end: then not even an empty text is found
};

Window window_of(Budget& budget, std::string_view text, Given given) {
  Window window{text};
  const auto bound = [&](size_t parameter) {
    const Value* value = given.find(parameter);
    return value != nullptr && !value->is_none();
  };
  if (!bound(1) && !bound(2)) return window;
  budget.spend_bytes(text.size());
  const size_t size = count_characters(text);
  const int64_t start = bound(1) ? given.integer(1, 0) : 0;
  const size_t begin = clamp_index(start, size);
  const size_t end = bound(2) ? clamp_index(given.integer(2, 0), size) : size;
  window.valid = begin <= end && (start < 0 || static_cast<uint64_t>(start) <= size);
  window.first_character = begin;
  const size_t begin_byte = byte_offset(text, begin);
  const std::string_view rest = text.substr(begin_byte);
  window.text = window.valid ? rest.substr(0, byte_offset(rest, end - begin)) : std::string_view();
  return window;
}

template <bool at_start>
Value string_affix(Environment& environment, Object object, Given given) {
  const Window window = window_of(environment.budget, self(object), given);
  const auto matches = [&](const Value& affix) {
    const String* wanted = affix.string();
    if (wanted == nullptr) fail(fmt::format("a string cannot start or end with {}", described(affix)));
    environment.budget.spend_bytes(wanted->text.size());
    if (!window.valid || wanted->text.size() > window.text.size()) return false;
    const size_t from = at_start ? 0 : window.text.size() - wanted->text.size();
    return window.text.substr(from, wanted->text.size()) == wanted->text;
  };
  const Value& affix = *given.find(0);
  if (affix.is_undefined()) fail_undefined(affix);
  const List* several = affix.list();
  if (several == nullptr || !several->tuple) return matches(affix);
  return std::any_of(several->items.begin(), several->items.end(), matches);
}

// The index, in characters, of the first or last occurrence; -1 when there is none.
template <bool from_end>
int64_t search(Environment& environment, Object object, Given given) {
  const Window window = window_of(environment.budget, self(object), given);
  const std::string_view wanted = given.text(0, "");
  spend_search(environment.budget, window.text.size(), wanted.size());
  if (!window.valid) return -1;
  const size_t found = from_end ? window.text.rfind(wanted) : window.text.find(wanted);
  if (found == std::string_view::npos) return -1;
  return static_cast<int64_t>(window.first_character + count_characters(window.text.substr(0, found)));
}

template <bool from_end>
Value string_find(Environment& environment, Object object, Given given) {
  return search<from_end>(environment, object, given);
}

template <bool from_end>
Value string_index(Environment& environment, Object object, Given given) {
  const int64_t found = search<from_end>(environment, object, given);
  if (found < 0) fail("the text searched for was not found");
  return found;
}

Value string_count(Environment& environment, Object object, Given given) {
  const Window window = window_of(environment.budget, self(object), given);
  const std::string_view wanted = given.text(0, "");
  spend_search(environment.budget, window.text.size(), wanted.size());
  if (!window.valid) return int64_t{0};
  if (wanted.empty()) return static_cast<int64_t>(count_characters(window.text)) + 1;
  int64_t count = 0;
  for (size_t at = window.text.find(wanted); at != std::string_view::npos;
       at = window.text.find(wanted, at + wanted.size())) {
    ++count;
  }
  return count;
}

Value string_replace(Environment& environment, Object object, Given given) {
  return replace(environment.budget, *object.string(), given.text(0, ""), given.string(1),
                 given.integer(2, -1));
}

// The pieces between white space. After `most` cuts the rest of the text is the last piece.
std::vector<std::string_view> split_at_space(std::string_view text, uint64_t most, bool from_end) {
  std::vector<std::string_view> pieces;
  while (true) {
    if (from_end) {
      text.remove_suffix(trailing_space(text));
    } else {
      text.remove_prefix(leading_space(text));
    }
    if (text.empty()) break;
    if (most-- == 0) {
      // As in Python, the rest keeps the white space on its far side.
      pieces.push_back(text);
      break;
    }
    if (from_end) {
      size_t begin = text.size();
      while (begin > 0 && !is_space(character_before(text, begin).code)) {
        begin -= character_before(text, begin).bytes;
      }
      pieces.push_back(text.substr(begin));
      text = text.substr(0, begin);
    } else {
      size_t end = 0;
      while (end < text.size() && !is_space(character_at(text, end).code))
        end += character_at(text, end).bytes;
      pieces.push_back(text.substr(0, end));
      text.remove_prefix(end);
    }
  }
  return pieces;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, uint64_t most,
                                       bool from_end) {
  std::vector<std::string_view> pieces;
  for (; most > 0; --most) {
    const size_t found = from_end ? text.rfind(separator) : text.find(separator);
    if (found == std::string_view::npos) break;
    const std::string_view before = text.substr(0, found);
    const std::string_view after = text.substr(found + separator.size());
    pieces.push_back(from_end ? after : before);
    text = from_end ? before : after;
  }
  pieces.push_back(text);
  return pieces;
}

// A list of substrings; the pieces are views into `whole`.
Value string_list(Budget& budget, const String& whole, const std::vector<std::string_view>& pieces,
                  bool tuple = false) {
  std::vector<Value> items;
  items.reserve(pieces.size());
  for (const std::string_view piece : pieces) items.push_back(make_part(budget, whole, piece));
  return make_list(budget, std::move(items), tuple);
}

template <bool from_end>
Value string_split(Environment& environment, Object object, Given given) {
  Budget& budget = environment.budget;
  const int64_t limit = given.integer(1, -1);
  const uint64_t most = limit < 0 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(limit);
  const Value* separator = given.find(0);
  // There are no more pieces than bytes: each uses at least one byte of the text or of a separator.
  budget.require(self(object).size() * sizeof(std::string_view));
  std::vector<std::string_view> pieces;
  if (separator == nullptr || separator->is_none()) {
    budget.spend_bytes(self(object).size() * 4);
    pieces = split_at_space(self(object), most, from_end);
  } else {
    const std::string_view wanted = given.text(0, "");
    if (wanted.empty()) fail("the separator is empty");
    spend_search(budget, self(object).size(), wanted.size());
    pieces = split_at(self(object), wanted, most, from_end);
  }
  if (from_end) std::reverse(pieces.begin(), pieces.end());
  return string_list(budget, *object.string(), pieces);
}

template <bool from_end>
Value string_partition(Environment& environment, Object object, Given given) {
  const std::string_view text = self(object);
  const std::string_view separator = given.text(0, "");
  if (separator.empty()) fail("the separator is empty");
  spend_search(environment.budget, text.size(), separator.size());
  const size_t found = from_end ? text.rfind(separator) : text.find(separator);
  std::vector<std::string_view> parts;
  if (found != std::string_view::npos) {
    const size_t after = found + separator.size();
    parts = {text.substr(0, found), text.substr(found, separator.size()), text.substr(after)};
  } else if (from_end) {
    parts = {"", "", text};
  } else {
    parts = {text, "", ""};
  }
  return string_list(environment.budget, *object.string(), parts, true);
}

Value string_split_lines(Environment& environment, Object object, Given given) {
  environment.budget.spend_bytes(self(object).size());
  environment.budget.require(self(object).size() * sizeof(std::string_view));
  return string_list(environment.budget, *object.string(), split_lines(self(object), given.truth(0, false)));
}

Value string_join(Environment& environment, Object object, Given given) {
  const std::shared_ptr<const List> items = iterate(environment.budget, *given.find(0));
  TextBuilder text(environment.budget);
  for (size_t i = 0; i < items->items.size(); ++i) {
    const String* item = items->items[i].string();
    if (item == nullptr) fail(fmt::format("join() takes strings, found {}", described(items->items[i])));
    if (i > 0) text.append(*object.string());
    text.append(*item);
  }
  return std::move(text).value();
}

template <bool at_start>
Value string_remove(Environment& environment, Object object, Given given) {
  std::string_view text = self(object);
  const std::string_view affix = given.text(0, "");
  environment.budget.spend_bytes(affix.size());
  if (affix.size() <= text.size()) {
    const size_t from = at_start ? 0 : text.size() - affix.size();
    if (text.substr(from, affix.size()) == affix) {
      text = at_start ? text.substr(affix.size()) : text.substr(0, from);
    }
  }
  return make_part(environment.budget, *object.string(), text);
}

bool is_alphanumeric(uint32_t code) { return is_letter(code) || is_numeric(code); }

// empty: what is said of a string without characters.
template <bool (*wanted)(uint32_t), bool empty = false>
Value string_all(Environment& environment, Object object, Given) {
  const std::string_view text = self(object);
  environment.budget.spend_bytes(text.size());
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    if (!wanted(next.code)) return false;
    position += next.bytes;
  }
  return empty || !text.empty();
}

template <bool (*unwanted)(uint32_t)>
Value string_cased(Environment& environment, Object object, Given) {
  const std::string_view text = self(object);
  environment.budget.spend_bytes(text.size());
  bool cased = false;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    if (unwanted(next.code) || is_title(next.code)) return false;
    cased = cased || is_cased(next.code);
    position += next.bytes;
  }
  return cased;
}

template <Padding padding>
Value string_pad(Environment& environment, Object object, Given given) {
  const std::string_view fill = given.text(1, " ");
  if (count_characters(fill) != 1) fail("a string is padded with one character");
  return pad(environment.budget, *object.string(), given.integer(0, 0), fill, padding);
}

// Zeros behind a sign.
Value string_zero_fill(Environment& environment, Object object, Given given) {
  const String& string = *object.string();
  const bool sign = !string.text.empty() && (string.text[0] == '+' || string.text[0] == '-');
  const Value padded = pad(environment.budget, string, given.integer(0, 0), "0", Padding::left);
  const size_t zeros = padded.string()->text.size() - string.text.size();
  if (!sign || zeros == 0) return padded;
  TextBuilder text(environment.budget);
  text.append_part(string, std::string_view(string.text).substr(0, 1));
  text.append_part(*padded.string(), std::string_view(padded.string()->text).substr(0, zeros));
  text.append_part(string, std::string_view(string.text).substr(1));
  return std::move(text).value();
}

Value string_expand_tabs(Environment& environment, Object object, Given given) {
  const String& string = *object.string();
  const std::string_view text = string.text;
  const int64_t size = given.integer(0, 8);
  if (size > 1000) fail("tabs of more than 1000 characters");
  TextBuilder expanded(environment.budget);
  int64_t column = 0;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    if (next.code == '\t') {
      const int64_t blanks = size > 0 ? size - column % size : 0;
      expanded.append(std::string(static_cast<size_t>(blanks), ' '));
      column += blanks;
    } else {
      expanded.append_part(string, text.substr(position, next.bytes));
      column = next.code == '\n' || next.code == '\r' ? 0 : column + 1;
    }
    position += next.bytes;
  }
  return std::move(expanded).value();
}

// Whether upper case begins every word of cased characters and no other place.
Value string_is_title(Environment& environment, Object object, Given) {
  const std::string_view text = self(object);
  environment.budget.spend_bytes(text.size());
  bool inside = false;
  bool any = false;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    const bool capital = is_upper(next.code) || is_title(next.code);
    if (capital ? inside : is_lower(next.code) && !inside) return false;
    inside = is_cased(next.code);
    any = any || inside;
    position += next.bytes;
  }
  return any;
}

bool is_ascii(uint32_t code) { return code < 0x80; }

Value string_format(Environment& environment, Object object, Given given) {
  return format_braces(environment.budget, *object.string(), {given.extra(), given.extra_named()});
}

constexpr std::array<Method, 41> string_methods = {{
    {{"strip", {"chars"}}, string_strip<Side::both>},
    {{"lstrip", {"chars"}}, string_strip<Side::left>},
    {{"rstrip", {"chars"}}, string_strip<Side::right>},
    {{"upper"}, string_case<Case::upper>},
    {{"lower"}, string_case<Case::lower>},
    {{"title"}, string_case<Case::title>},
    {{"capitalize"}, string_case<Case::capitalize>},
    {{"startswith", {"prefix", "start", "end"}, 1}, string_affix<true>},
    {{"endswith", {"suffix", "start", "end"}, 1}, string_affix<false>},
    {{"find", {"sub", "start", "end"}, 1}, string_find<false>},
    {{"rfind", {"sub", "start", "end"}, 1}, string_find<true>},
    {{"index", {"sub", "start", "end"}, 1}, string_index<false>},
    {{"rindex", {"sub", "start", "end"}, 1}, string_index<true>},
    {{"count", {"sub", "start", "end"}, 1}, string_count},
    {{"replace", {"old", "new", "count"}, 2}, string_replace},
    {{"split", {"sep", "maxsplit"}}, string_split<false>},
    {{"rsplit", {"sep", "maxsplit"}}, string_split<true>},
    {{"partition", {"sep"}, 1}, string_partition<false>},
    {{"rpartition", {"sep"}, 1}, string_partition<true>},
    {{"splitlines", {"keepends"}}, string_split_lines},
    {{"join", {"iterable"}, 1}, string_join},
    {{"removeprefix", {"prefix"}, 1}, string_remove<true>},
    {{"removesuffix", {"suffix"}, 1}, string_remove<false>},
    {{"isalpha"}, string_all<is_letter>},
    {{"isdigit"}, string_all<is_digit>},
    {{"isdecimal"}, string_all<is_decimal>},
    {{"isnumeric"}, string_all<is_numeric>},
    {{"isalnum"}, string_all<is_alphanumeric>},
    {{"isspace"}, string_all<is_space>},
    {{"isprintable"}, string_all<is_printable, true>},
    {{"isupper"}, string_cased<is_lower>},
    {{"islower"}, string_cased<is_upper>},
    {{"istitle"}, string_is_title},
    {{"isascii"}, string_all<is_ascii, true>},
    {{"swapcase"}, string_case<Case::swap>},
    {{"center", {"width", "fillchar"}, 1}, string_pad<Padding::both>},
    {{"ljust", {"width", "fillchar"}, 1}, string_pad<Padding::right>},
    {{"rjust", {"width", "fillchar"}, 1}, string_pad<Padding::left>},
    {{"zfill", {"width"}, 1}, string_zero_fill},
    {{"expandtabs", {"tabsize"}}, string_expand_tabs},
    {{"format", {}, 0, true, true}, string_format},
}};

Value loop_cycle(Environment&, Object object, Given given) {
  if (given.extra().empty()) fail("cycle() needs something to cycle through");
  return given.extra()[object.loop()->index % given.extra().size()];
}

constexpr std::array<Method, 1> loop_methods = {{{{"cycle", {}, 0, true}, loop_cycle}}};

}  // namespace

const Method* find_in(std::span<const Method> methods, std::string_view name) {
  const auto found = std::find_if(methods.begin(), methods.end(),
                                  [name](const Method& method) { return method.signature.name == name; });
  return found == methods.end() ? nullptr : &*found;
}

const Method* find_method(const Value& object, std::string_view name) {
  if (object.string() != nullptr) return find_in(string_methods, name);
  if (object.loop() != nullptr) return find_in(loop_methods, name);
  return find_container_method(object, name);
}

}  // namespace tessera::jinja
