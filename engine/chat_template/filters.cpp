#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/characters.h"
#include "engine/chat_template/format_text.h"
#include "engine/chat_template/literals.h"
#include "engine/chat_template/operators.h"
#include "engine/chat_template/string_operations.h"

namespace tessera::jinja {

namespace {

using Subject = const Value&;
using Given = const Arguments&;

Value filter_default(Environment& environment, Subject subject, Given given) {
  if (!subject.is_undefined() && !(given.truth(1, false) && !truthy(subject))) return subject;
  return given.find(0) == nullptr ? make_string(environment.budget, "") : *given.find(0);
}

Value filter_trim(Environment& environment, Subject subject, Given given) {
  Value storage;
  return strip(environment.budget, text_of(environment.budget, subject, storage), given.find(0), Side::both);
}

template <Case wanted>
Value filter_case(Environment& environment, Subject subject, Given) {
  Value storage;
  const String& string = text_of(environment.budget, subject, storage);
  environment.budget.spend_bytes(string.text.size() * 4);
  environment.budget.require(string.text.size() * kMostCaseGrowth);
  return make_changed(environment.budget, string, change_case(string.text, wanted));
}

// For the title filter a word begins only after white space, a dash or an opening bracket.
Value filter_title(Environment& environment, Subject subject, Given) {
  Value storage;
  const String& string = text_of(environment.budget, subject, storage);
  const std::string_view text = string.text;
  environment.budget.spend_bytes(text.size() * 4);
  environment.budget.require(text.size() * kMostCaseGrowth);
  std::string titled;
  const auto add_word = [&](std::string_view piece) {
    if (piece.empty()) return;
    const size_t first = character_at(piece, 0).bytes;
    titled += change_case(piece.substr(0, first), Case::upper);
    titled += change_case(piece.substr(first), Case::lower);
  };
  size_t word = 0;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    const size_t after = position + next.bytes;
    if (is_space(next.code) || std::string_view("-([{<").find(text[position]) != std::string_view::npos) {
      add_word(text.substr(word, position - word));
      titled += text.substr(position, next.bytes);
      word = after;
    }
    position = after;
  }
  add_word(text.substr(word));
  return make_changed(environment.budget, string, std::move(titled));
}

Value filter_replace(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  Value kept_text;
  Value kept_wanted;
  Value kept_replacement;
  const String& text = text_of(budget, subject, kept_text);
  const String& wanted = text_of(budget, *given.find(0), kept_wanted);
  const String& replacement = text_of(budget, *given.find(1), kept_replacement);
  const bool limited = given.find(2) != nullptr && !given.find(2)->is_none();
  return replace(budget, text, wanted.text, replacement, limited ? given.integer(2, -1) : -1);
}

Value filter_string(Environment& environment, Subject subject, Given) {
  Value storage;
  text_of(environment.budget, subject, storage);
  return storage;
}

// The value of a parameter that is either a string or a number of spaces, as a string.
Value indentation(Budget& budget, const Value& value, std::string_view filter) {
  if (value.string() != nullptr) return value;
  const int64_t* integer = value.get<int64_t>();
  if (integer == nullptr)
    fail(fmt::format("{} is indented by an integer or a string, found {}", filter, described(value)));
  const uint64_t count = *integer < 0 ? 0 : static_cast<uint64_t>(*integer);
  budget.require(count);
  budget.spend_bytes(count);
  return make_string(budget, std::string(count, ' '));
}

Value filter_indent(Environment& environment, Subject subject, Given given) {
  Budget& budget = environment.budget;
  Value storage;
  const String& string = text_of(budget, subject, storage);
  const std::string_view text = string.text;
  const Value indent =
      indentation(budget, given.find(0) == nullptr ? Value(int64_t{4}) : *given.find(0), "indent");
  const bool blank_lines_too = given.truth(2, false);
  // A line end at the very end counts as an empty last line.
  budget.spend_bytes(text.size());
  budget.require(text.size() * (sizeof(std::string_view) + 1));
  const std::string closed = std::string(text) + "\n";
  const std::vector<std::string_view> lines = split_lines(closed, false);
  TextBuilder result(budget);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result.append("\n");
    if (i == 0 ? given.truth(1, false) : (blank_lines_too || !lines[i].empty()))
      result.append(*indent.string());
    const auto begin = static_cast<size_t>(lines[i].data() - closed.data());
    result.append_part(string, text.substr(begin, lines[i].size()));
  }
  return std::move(result).value();
}

Value filter_tojson(Environment& environment, Subject subject, Given given) {
  JsonStyle style;
  style.ascii = given.truth(0, false);
  if (given.find(1) != nullptr && !given.find(1)->is_none()) {
    style.indent = indentation(environment.budget, *given.find(1), "tojson");
  }
  style.item_separator = make_string(environment.budget, style.indent ? "," : ", ");
  style.key_separator = make_string(environment.budget, ": ");
  if (given.find(2) != nullptr && !given.find(2)->is_none()) {
    const std::shared_ptr<const List> separators = iterate(environment.budget, *given.find(2));
    const auto is_text = [](const Value& value) { return value.string() != nullptr; };
    if (separators->items.size() != 2 ||
        !std::all_of(separators->items.begin(), separators->items.end(), is_text)) {
      fail("tojson: separators are two strings");
    }
    style.item_separator = separators->items[0];
    style.key_separator = separators->items[1];
  }
  style.sort_keys = given.truth(3, false);
  return to_json(environment.budget, subject, style);
}

Value filter_length(Environment& environment, Subject subject, Given) {
  if (const String* string = subject.string()) {
    environment.budget.spend_bytes(string->text.size());
    return static_cast<int64_t>(count_characters(string->text));
  }
  if (const List* list = subject.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = subject.dict()) return static_cast<int64_t>(dict->entries.size());
  if (const Loop* loop = subject.loop()) return static_cast<int64_t>(loop->items->items.size());
  if (subject.is_undefined()) return int64_t{0};
  fail(fmt::format("{} has no length", described(subject)));
}

std::string_view stripped(std::string_view text) {
  text.remove_prefix(leading_space(text));
  text.remove_suffix(trailing_space(text));
  return text;
}

int64_t truncated(double number) {
  constexpr double limit = 9223372036854775808.0;
  if (!(number >= -limit && number < limit)) fail("int: the number does not fit 64 bits");
  return static_cast<int64_t>(number);
}

std::optional<double> number_in(std::string_view text) {
  text = stripped(text);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text.empty() || text[0] == '-' || text[0] == '_') return std::nullopt;
  const std::optional<double> number = parse_number(text);
  if (!number) return std::nullopt;
  return negative ? -*number : *number;
}

Value filter_int(Environment& environment, Subject subject, Given given) {
  const Value otherwise = given.find(0) == nullptr ? Value(int64_t{0}) : *given.find(0);
  const int64_t base = given.integer(1, 10);
  if (subject.is_undefined()) fail_undefined(subject);
  if (const bool* truth = subject.get<bool>()) return int64_t{*truth ? 1 : 0};
  if (subject.holds<int64_t>()) return subject;
  if (const double* number = subject.get<double>()) return truncated(*number);
  const String* string = subject.string();
  if (string == nullptr) return otherwise;
  environment.budget.spend_bytes(string->text.size());
  std::string_view text = stripped(string->text);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  std::string digits(text);
  if (base == 16 && (digits.rfind("0x", 0) == 0 || digits.rfind("0X", 0) == 0)) digits.erase(0, 2);
  if (base == 8 && (digits.rfind("0o", 0) == 0 || digits.rfind("0O", 0) == 0)) digits.erase(0, 2);
  if (base == 2 && (digits.rfind("0b", 0) == 0 || digits.rfind("0B", 0) == 0)) digits.erase(0, 2);
  if (base != 2 && base != 8 && base != 10 && base != 16) fail("int: the base is 2, 8, 10 or 16");
  const bool plain = !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) {
    return std::string_view("0123456789abcdefABCDEF").find(c) != std::string_view::npos;
  });
  const char* prefix = base == 16 ? "0x" : (base == 8 ? "0o" : (base == 2 ? "0b" : ""));
  if (plain) {
    if (const std::optional<int64_t> integer = parse_integer(prefix + digits))
      return negative ? -*integer : *integer;
  }
  if (const std::optional<double> number = number_in(string->text)) {
    if (std::isfinite(*number)) return truncated(*number);
  }
  return otherwise;
}

Value filter_float(Environment& environment, Subject subject, Given given) {
  if (subject.is_undefined()) fail_undefined(subject);
  if (const bool* truth = subject.get<bool>()) return *truth ? 1.0 : 0.0;
  if (const int64_t* integer = subject.get<int64_t>()) return static_cast<double>(*integer);
  if (subject.holds<double>()) return subject;
  if (const String* string = subject.string()) {
    environment.budget.spend_bytes(string->text.size());
    if (const std::optional<double> number = number_in(string->text)) return *number;
  }
  return given.find(0) == nullptr ? Value(0.0) : *given.find(0);
}

Value filter_round(Environment&, Subject subject, Given given) {
  const int64_t precision = given.integer(0, 0);
  const std::string_view method = given.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("round: the method is common, ceil or floor");
  }
  if (precision < -18 || precision > 300) fail("round: the precision is between -18 and 300");
  if (subject.is_undefined()) fail_undefined(subject);
  const bool whole = subject.holds<int64_t>() || subject.holds<bool>();
  if (!whole && !subject.holds<double>()) fail(fmt::format("{} cannot be rounded", described(subject)));
  if (whole && method == "common" && precision >= 0) {
    return subject.holds<bool>() ? Value(int64_t{*subject.get<bool>()}) : subject;
  }
  double number = 0;
  if (const double* found = subject.get<double>()) {
    number = *found;
  } else {
    number = subject.holds<bool>() ? (*subject.get<bool>() ? 1.0 : 0.0)
                                   : static_cast<double>(*subject.get<int64_t>());
  }
  if (!std::isfinite(number)) return number;
  if (method == "common" && precision >= 0) {
    // Formatting rounds the double's exact decimal value, half to even; scaling it first would round twice.
    return parse_number(fmt::format("{:.{}f}", std::fabs(number), precision)).value() *
           (std::signbit(number) ? -1 : 1);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = number * scale;
  double rounded = std::nearbyint(scaled);
  if (method == "ceil") rounded = std::ceil(scaled);
  if (method == "floor") rounded = std::floor(scaled);
  const double result = rounded / scale;
  if (!std::isfinite(result)) fail("round: the number is out of range");
  return whole && method == "common" ? Value(truncated(result)) : Value(result);
}

Value filter_abs(Environment&, Subject subject, Given) {
  if (const double* number = subject.get<double>()) return std::fabs(*number);
  if (const int64_t* integer = subject.get<int64_t>()) return *integer < 0 ? negate(subject) : subject;
  if (const bool* truth = subject.get<bool>()) return int64_t{*truth ? 1 : 0};
  if (subject.is_undefined()) fail_undefined(subject);
  fail(fmt::format("{} has no absolute value", described(subject)));
}

Value filter_attr(Environment& environment, Subject subject, Given given) {
  // Unlike a subscript, this filter never finds the entries of a dict.
  const Value name = *given.find(0);
  given.text(0, "");
  if (subject.dict() == nullptr) return get_item(environment.budget, subject, name);
  const Method* method = find_method(subject, name.string()->text);
  return method == nullptr ? Value() : make_method(environment.budget, subject, method);
}

Value filter_format(Environment& environment, Subject subject, Given given) {
  Value storage;
  const String& format = text_of(environment.budget, subject, storage);
  if (!given.extra().empty() && !given.extra_named().empty())
    fail("format: takes positional or named arguments, not both");
  if (given.extra_named().empty())
    return format_percent(environment.budget, format, make_list(environment.budget, given.extra(), true));
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [name, value] : given.extra_named())
    entries.emplace_back(make_string(environment.budget, name), value);
  return format_percent(environment.budget, format, make_dict(environment.budget, std::move(entries)));
}

Value filter_center(Environment& environment, Subject subject, Given given) {
  Value storage;
  return pad(environment.budget, text_of(environment.budget, subject, storage), given.integer(0, 80), " ",
             Padding::both);
}

// Words are runs of letters, numerals and underscores.
Value filter_word_count(Environment& environment, Subject subject, Given) {
  Value storage;
  const std::string_view text = text_of(environment.budget, subject, storage).text;
  environment.budget.spend_bytes(text.size());
  int64_t count = 0;
  bool inside = false;
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    const bool word = is_letter(next.code) || is_numeric(next.code) || next.code == '_';
    if (word && !inside) ++count;
    inside = word;
    position += next.bytes;
  }
  return count;
}

// Output is never escaped, so marking text as safe changes nothing.
Value filter_safe(Environment& environment, Subject subject, Given given) {
  return filter_string(environment, subject, given);
}

constexpr std::array<Filter, 22> filters = {{
    {{"default", {"default_value", "boolean"}}, filter_default},
    {{"d", {"default_value", "boolean"}}, filter_default},
    {{"trim", {"chars"}}, filter_trim},
    {{"upper"}, filter_case<Case::upper>},
    {{"lower"}, filter_case<Case::lower>},
    {{"capitalize"}, filter_case<Case::capitalize>},
    {{"title"}, filter_title},
    {{"replace", {"old", "new", "count"}, 2}, filter_replace},
    {{"string"}, filter_string},
    {{"safe"}, filter_safe},
    {{"indent", {"width", "first", "blank"}}, filter_indent},
    {{"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}}, filter_tojson},
    {{"length"}, filter_length},
    {{"count"}, filter_length},
    {{"int", {"default", "base"}}, filter_int},
    {{"float", {"default"}}, filter_float},
    {{"round", {"precision", "method"}}, filter_round},
    {{"abs"}, filter_abs},
    {{"attr", {"name"}, 1}, filter_attr},
    {{"format", {}, 0, true, true}, filter_format},
    {{"center", {"width"}}, filter_center},
    {{"wordcount"}, filter_word_count},
}};

}  // namespace

const Filter* find_filter(std::string_view name) {
  const auto found = std::find_if(filters.begin(), filters.end(),
                                  [name](const Filter& filter) { return filter.signature.name == name; });
  return found == filters.end() ? find_sequence_filter(name) : &*found;
}

}  // namespace tessera::jinja
