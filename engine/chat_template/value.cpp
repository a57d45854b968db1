#include "engine/chat_template/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "engine/chat_template/characters.h"

namespace tessera::jinja {

namespace {

constexpr uint64_t kBytesPerValue = 96;  // allocation overhead of one shared value
constexpr size_t kMostValueLevels = 64;  // lists and dicts inside each other

size_t depth_of(const Value& value) {
  if (const List* list = value.list()) return list->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  if (const Loop* loop = value.loop()) return loop->items->depth + 1;
  if (const BoundMethod* method = value.method()) return depth_of(method->object) + 1;
  return 0;
}

size_t one_deeper(size_t depth) {
  if (depth >= kMostValueLevels)
    fail(fmt::format("values are nested deeper than {} levels", kMostValueLevels));
  return depth + 1;
}

// bool, int and float compare with each other as numbers.
bool is_number(const Value& value) {
  return value.holds<bool>() || value.holds<int64_t>() || value.holds<double>();
}

bool integer_value(const Value& value, int64_t& integer) {
  if (const bool* truth = value.get<bool>()) {
    integer = *truth ? 1 : 0;
    return true;
  }
  if (const int64_t* found = value.get<int64_t>()) {
    integer = *found;
    return true;
  }
  return false;
}

int sign_of(int64_t left, int64_t right) { return left < right ? -1 : (left > right ? 1 : 0); }

// Compares exactly, even when the integer has no equal double. number: not NaN.
int compare_mixed(int64_t integer, double number) {
  constexpr double two_63 = 9223372036854775808.0;
  if (number >= two_63) return -1;
  if (number < -two_63) return 1;
  const double whole = std::trunc(number);
  const int by_whole = sign_of(integer, static_cast<int64_t>(whole));
  if (by_whole != 0) return by_whole;
  return number > whole ? -1 : (number < whole ? 1 : 0);
}

int compare_numbers(const Value& left, const Value& right, bool& ordered) {
  int64_t a = 0;
  int64_t b = 0;
  const bool left_integer = integer_value(left, a);
  const bool right_integer = integer_value(right, b);
  if (left_integer && right_integer) return sign_of(a, b);
  const double x = left_integer ? 0.0 : *left.get<double>();
  const double y = right_integer ? 0.0 : *right.get<double>();
  if (std::isnan(x) || std::isnan(y)) {
    ordered = false;
    return 1;
  }
  if (left_integer) return compare_mixed(a, y);
  if (right_integer) return -compare_mixed(b, x);
  return x < y ? -1 : (x > y ? 1 : 0);
}

bool equal_dicts(Budget& budget, const Dict& left, const Dict& right) {
  if (left.entries.size() != right.entries.size()) return false;
  for (const auto& [key, value] : left.entries) {
    const Value* other = find_key(budget, right, key);
    if (other == nullptr || !equal(budget, value, *other)) return false;
  }
  return true;
}

void append_quoted(TextBuilder& out, const String& string) {
  const std::string_view text = string.text;
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string quoted(1, quote);
  for (size_t position = 0; position < text.size();) {
    const Character next = character_at(text, position);
    const std::string_view bytes = text.substr(position, next.bytes);
    position += next.bytes;
    if (next.code == '\\' || next.code == static_cast<uint32_t>(quote)) {
      quoted += '\\';
      quoted += bytes;
    } else if (next.code == '\n') {
      quoted += "\\n";
    } else if (next.code == '\r') {
      quoted += "\\r";
    } else if (next.code == '\t') {
      quoted += "\\t";
    } else if (next.code == kNoCharacter) {
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes[0]));
    } else if (is_printable(next.code)) {
      quoted += bytes;
    } else if (next.code < 0x100) {
      quoted += fmt::format("\\x{:02x}", next.code);
    } else if (next.code < 0x10000) {
      quoted += fmt::format("\\u{:04x}", next.code);
    } else {
      quoted += fmt::format("\\U{:08x}", next.code);
    }
    if (quoted.size() > 4096) {
      out.append_changed(string, quoted);
      quoted.clear();
    }
  }
  quoted += quote;
  out.append_changed(string, quoted);
}

}  // namespace

void fail_undefined(const Value& value) {
  const Undefined* undefined = value.get<Undefined>();
  if (undefined != nullptr && undefined->name != nullptr)
    fail(fmt::format("'{}' is undefined", *undefined->name));
  fail("the value is undefined");
}

Value make_string(Budget& budget, std::string text) {
  return make_string(budget, as_unquoted(std::move(text)));
}

Value make_string(Budget& budget, QuotedText text) {
  const uint64_t bytes = text.text.size() + text.quotes.ranges().size() * sizeof(Quotes::Range);
  budget.spend_bytes(bytes);
  Charge charge(budget, bytes + kBytesPerValue);
  return std::make_shared<const String>(String{std::move(text), std::move(charge)});
}

Value make_part(Budget& budget, const String& whole, std::string_view part) {
  QuotedText text;
  if (!part.empty()) {
    const auto begin = static_cast<size_t>(part.data() - whole.text.data());
    text.append(whole, begin, begin + part.size());
  }
  return make_string(budget, std::move(text));
}

Value make_changed(Budget& budget, const String& source, std::string text) {
  const bool quoted = !source.quotes.ranges().empty();
  return make_string(budget, quoted ? as_quoted(std::move(text)) : as_unquoted(std::move(text)));
}

Value make_constant_string(std::string text) {
  return std::make_shared<const String>(String{as_unquoted(std::move(text)), Charge()});
}

Value make_list(Budget& budget, std::vector<Value> items, bool tuple) {
  const uint64_t bytes = uint64_t{items.size()} * sizeof(Value);
  budget.spend_bytes(bytes);
  size_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  Charge charge(budget, bytes + kBytesPerValue);
  // Not made const: see changeable.
  return std::shared_ptr<const List>(
      std::make_shared<List>(List{std::move(items), tuple, one_deeper(depth), std::move(charge)}));
}

Value make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries) {
  const uint64_t bytes = uint64_t{entries.size()} * sizeof(entries[0]);
  budget.spend_bytes(bytes);
  size_t depth = 0;
  for (const auto& [key, value] : entries) depth = std::max({depth, depth_of(key), depth_of(value)});
  Charge charge(budget, bytes + kBytesPerValue);
  return std::shared_ptr<const Dict>(
      std::make_shared<Dict>(Dict{std::move(entries), one_deeper(depth), std::move(charge)}));
}

Value make_method(Budget& budget, Value object, const Method* method) {
  budget.spend(1);
  one_deeper(depth_of(object));
  return std::make_shared<const BoundMethod>(
      BoundMethod{std::move(object), method, Charge(budget, kBytesPerValue)});
}

List& changeable(const List& list) { return const_cast<List&>(list); }
Dict& changeable(const Dict& dict) { return const_cast<Dict&>(dict); }

void TextBuilder::append_all(std::string_view text, bool quoted) {
  budget_->spend_bytes(text.size());
  charge_.grow(text.size());
  const size_t ranges = text_.quotes.ranges().size();
  text_.append(text, quoted);
  charge_.grow((text_.quotes.ranges().size() - ranges) * sizeof(Quotes::Range));
}

void TextBuilder::append_part(const String& whole, std::string_view part) {
  if (part.empty()) return;
  const auto begin = static_cast<size_t>(part.data() - whole.text.data());
  budget_->spend_bytes(part.size());
  charge_.grow(part.size());
  const size_t ranges = text_.quotes.ranges().size();
  text_.append(whole, begin, begin + part.size());
  charge_.grow((text_.quotes.ranges().size() - ranges) * sizeof(Quotes::Range));
}

void TextBuilder::append_changed(const String& source, std::string_view text) {
  append_all(text, !source.quotes.ranges().empty());
}

Value TextBuilder::value() && {
  charge_.grow(kBytesPerValue);
  return std::make_shared<const String>(String{std::move(text_), std::move(charge_)});
}

QuotedText TextBuilder::release() && { return std::move(text_); }

std::string type_name(const Value& value) {
  struct Namer {
    std::string operator()(const Undefined&) const { return "undefined"; }
    std::string operator()(const None&) const { return "none"; }
    std::string operator()(bool) const { return "boolean"; }
    std::string operator()(int64_t) const { return "integer"; }
    std::string operator()(double) const { return "float"; }
    std::string operator()(const std::shared_ptr<const String>&) const { return "string"; }
    std::string operator()(const std::shared_ptr<const List>& list) const {
      return list->tuple ? "tuple" : "list";
    }
    std::string operator()(const std::shared_ptr<const Dict>&) const { return "mapping"; }
    std::string operator()(Namespace*) const { return "namespace"; }
    std::string operator()(const std::shared_ptr<const Loop>&) const { return "loop"; }
    std::string operator()(const std::shared_ptr<const Closure>&) const { return "macro"; }
    std::string operator()(const Function*) const { return "function"; }
    std::string operator()(const std::shared_ptr<const BoundMethod>&) const { return "method"; }
  };
  return std::visit(Namer{}, value.data());
}

std::string described(const Value& value) {
  if (value.is_none()) return "none";
  if (value.is_undefined()) return "an undefined value";
  return (value.holds<int64_t>() ? "an " : "a ") + type_name(value);
}

bool truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const bool* truth = value.get<bool>()) return *truth;
  if (const int64_t* integer = value.get<int64_t>()) return *integer != 0;
  if (const double* number = value.get<double>()) return *number != 0.0;
  if (const String* string = value.string()) return !string->text.empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return true;
}

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto [end, error] =
      std::to_chars(buffer, buffer + sizeof(buffer), std::fabs(number), std::chars_format::scientific);
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t mark = shortest.find('e');
  std::string digits(1, shortest[0]);
  if (mark > 2) digits += shortest.substr(2, mark - 2);
  int exponent = 0;
  const size_t exponent_start = shortest[mark + 1] == '+' ? mark + 2 : mark + 1;
  std::from_chars(shortest.data() + exponent_start, shortest.data() + shortest.size(), exponent);

  std::string text = std::signbit(number) ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    text += digits[0];
    if (digits.size() > 1) text += "." + digits.substr(1);
    text += fmt::format("e{}{:02d}", exponent < 0 ? '-' : '+', std::abs(exponent));
  } else if (exponent < 0) {
    text += "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  } else {
    const size_t whole = static_cast<size_t>(exponent) + 1;
    if (digits.size() <= whole) {
      text += digits + std::string(whole - digits.size(), '0') + ".0";
    } else {
      text += digits.substr(0, whole) + "." + digits.substr(whole);
    }
  }
  return text;
}

void append_text(TextBuilder& out, const Value& value) {
  if (value.is_undefined()) return;
  if (const String* string = value.string()) {
    out.append(*string);
  } else {
    append_repr(out, value);
  }
}

void append_repr(TextBuilder& out, const Value& value) {
  const Budget::Level level(out.budget());
  out.budget().spend(1);
  if (value.is_undefined()) {
    out.append("Undefined");
  } else if (value.is_none()) {
    out.append("None");
  } else if (const bool* truth = value.get<bool>()) {
    out.append(*truth ? "True" : "False");
  } else if (const int64_t* integer = value.get<int64_t>()) {
    out.append(fmt::format("{}", *integer));
  } else if (const double* number = value.get<double>()) {
    out.append(float_text(*number));
  } else if (const String* string = value.string()) {
    append_quoted(out, *string);
  } else if (const List* list = value.list()) {
    out.append(list->tuple ? "(" : "[");
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out.append(", ");
      append_repr(out, list->items[i]);
    }
    if (list->tuple && list->items.size() == 1) out.append(",");
    out.append(list->tuple ? ")" : "]");
  } else if (const Dict* dict = value.dict()) {
    out.append("{");
    for (size_t i = 0; i < dict->entries.size(); ++i) {
      if (i > 0) out.append(", ");
      append_repr(out, dict->entries[i].first);
      out.append(": ");
      append_repr(out, dict->entries[i].second);
    }
    out.append("}");
  } else {
    fail(fmt::format("{} cannot be printed", described(value)));
  }
}

const String& text_of(Budget& budget, const Value& value, Value& storage) {
  if (value.string() != nullptr) {
    storage = value;
  } else {
    TextBuilder text(budget);
    append_text(text, value);
    storage = std::move(text).value();
  }
  return *storage.string();
}

bool equal(Budget& budget, const Value& left, const Value& right) {
  const Budget::Level level(budget);
  budget.spend(1);
  if (is_number(left) && is_number(right)) {
    bool ordered = true;
    return compare_numbers(left, right, ordered) == 0 && ordered;
  }
  if (left.data().index() != right.data().index()) return false;
  if (left.is_undefined() || left.is_none()) return true;
  if (const String* string = left.string()) {
    const std::string& other = right.string()->text;
    if (string->text.size() != other.size()) return false;
    budget.spend_bytes(other.size());
    return string->text == other;
  }
  if (const List* list = left.list()) {
    const List& other = *right.list();
    if (list->tuple != other.tuple || list->items.size() != other.items.size()) return false;
    for (size_t i = 0; i < other.items.size(); ++i) {
      if (!equal(budget, list->items[i], other.items[i])) return false;
    }
    return true;
  }
  if (const Dict* dict = left.dict()) return equal_dicts(budget, *dict, *right.dict());
  if (const auto* space = left.get<Namespace*>()) return *space == *right.get<Namespace*>();
  if (const Closure* macro = left.macro()) return macro == right.macro();
  if (const auto* function = left.get<const Function*>()) return *function == *right.get<const Function*>();
  if (const Loop* loop = left.loop()) return loop == right.loop();
  return left.method()->method == right.method()->method &&
         equal(budget, left.method()->object, right.method()->object);
}

int compare(Budget& budget, const Value& left, const Value& right, bool& ordered) {
  const Budget::Level level(budget);
  budget.spend(1);
  if (is_number(left) && is_number(right)) return compare_numbers(left, right, ordered);
  if (left.string() != nullptr && right.string() != nullptr) {
    const std::string& a = left.string()->text;
    const std::string& b = right.string()->text;
    budget.spend_bytes(std::min(a.size(), b.size()));
    return a.compare(b);
  }
  if (left.list() != nullptr && right.list() != nullptr && left.list()->tuple == right.list()->tuple) {
    const std::vector<Value>& a = left.list()->items;
    const std::vector<Value>& b = right.list()->items;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (!equal(budget, a[i], b[i])) return compare(budget, a[i], b[i], ordered);
    }
    return a.size() < b.size() ? -1 : (a.size() > b.size() ? 1 : 0);
  }
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  fail(fmt::format("{} and {} have no order", type_name(left), type_name(right)));
}

std::shared_ptr<const List> iterate(Budget& budget, const Value& value) {
  if (const auto* list = value.get<std::shared_ptr<const List>>()) return *list;
  std::vector<Value> items;
  if (const String* string = value.string()) {
    const std::string_view text = string->text;
    for (size_t position = 0; position < text.size();) {
      const size_t bytes = character_at(text, position).bytes;
      items.push_back(make_part(budget, *string, text.substr(position, bytes)));
      position += bytes;
    }
  } else if (const Dict* dict = value.dict()) {
    for (const auto& entry : dict->entries) items.push_back(entry.first);
  } else if (!value.is_undefined()) {
    fail(fmt::format("{} cannot be iterated over", described(value)));
  }
  const Value list = make_list(budget, std::move(items));
  return *list.get<std::shared_ptr<const List>>();
}

const Value* find_key(Budget& budget, const Dict& dict, const Value& key) {
  for (const auto& entry : dict.entries) {
    if (equal(budget, entry.first, key)) return &entry.second;
  }
  return nullptr;
}

const Value* find_key(Budget& budget, const Dict& dict, std::string_view key) {
  budget.spend(dict.entries.size() / 8);
  for (const auto& entry : dict.entries) {
    const String* string = entry.first.string();
    if (string == nullptr || string->text.size() != key.size()) continue;
    if (key.size() > Budget::kBytesPerStep) budget.spend_bytes(key.size());
    if (string->text == key) return &entry.second;
  }
  return nullptr;
}

const Value* find_attribute(const Namespace& space, std::string_view name) {
  for (const auto& attribute : space.attributes) {
    if (attribute.first == name) return &attribute.second;
  }
  return nullptr;
}

}  // namespace tessera::jinja
