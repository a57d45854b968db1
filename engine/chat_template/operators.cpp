#include "engine/chat_template/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "engine/chat_template/characters.h"
#include "engine/chat_template/format_text.h"

namespace tessera::jinja {

namespace {

constexpr std::string_view kOverflowMessage = "an integer does not fit 64 bits";

std::string_view symbol_of(Operator operation) {
  switch (operation) {
    case Operator::add:
      return "+";
    case Operator::subtract:
      return "-";
    case Operator::multiply:
      return "*";
    case Operator::divide:
      return "/";
    case Operator::floor_divide:
      return "//";
    case Operator::modulo:
      return "%";
    case Operator::power:
      return "**";
    default:
      return "~";
  }
}

std::optional<int64_t> as_integer(const Value& value) {
  if (const bool* truth = value.get<bool>()) return *truth ? 1 : 0;
  if (const int64_t* integer = value.get<int64_t>()) return *integer;
  return std::nullopt;
}

std::optional<double> as_number(const Value& value) {
  if (const double* number = value.get<double>()) return *number;
  if (const std::optional<int64_t> integer = as_integer(value)) return static_cast<double>(*integer);
  return std::nullopt;
}

// `result` is a reference because it is assigned while the other argument of this function is evaluated.
int64_t checked(bool overflowed, const int64_t& result) {
  if (overflowed) fail(std::string(kOverflowMessage));
  return result;
}

int64_t floor_quotient(int64_t left, int64_t right) {
  if (right == 0) fail("division by zero");
  if (right == -1) {
    int64_t result = 0;
    return checked(__builtin_sub_overflow(int64_t{0}, left, &result), result);
  }
  const int64_t quotient = left / right;
  return quotient - (left % right != 0 && (left < 0) != (right < 0) ? 1 : 0);
}

int64_t floor_remainder(int64_t left, int64_t right) {
  if (right == 0) fail("division by zero");
  if (right == -1) return 0;
  const int64_t remainder = left % right;
  return remainder != 0 && (remainder < 0) != (right < 0) ? remainder + right : remainder;
}

Value float_power(double left, double right) {
  if (left == 0.0 && right < 0) fail("division by zero");
  const double result = std::pow(left, right);
  if (std::isnan(result) && !std::isnan(left) && !std::isnan(right)) fail("the power is not a real number");
  if (std::isinf(result) && !std::isinf(left) && !std::isinf(right)) fail("the power is out of range");
  return result;
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return float_power(static_cast<double>(base), static_cast<double>(exponent));
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0) result = checked(__builtin_mul_overflow(result, base, &result), result);
    exponent >>= 1;
    if (exponent > 0) base = checked(__builtin_mul_overflow(base, base, &base), base);
  }
  return result;
}

Value integer_arithmetic(Operator operation, int64_t left, int64_t right) {
  int64_t result = 0;
  switch (operation) {
    case Operator::add:
      return checked(__builtin_add_overflow(left, right, &result), result);
    case Operator::subtract:
      return checked(__builtin_sub_overflow(left, right, &result), result);
    case Operator::multiply:
      return checked(__builtin_mul_overflow(left, right, &result), result);
    case Operator::divide:
      if (right == 0) fail("division by zero");
      return static_cast<double>(left) / static_cast<double>(right);
    case Operator::floor_divide:
      return floor_quotient(left, right);
    case Operator::modulo:
      return floor_remainder(left, right);
    default:
      return integer_power(left, right);
  }
}

Value float_arithmetic(Operator operation, double left, double right) {
  switch (operation) {
    case Operator::add:
      return left + right;
    case Operator::subtract:
      return left - right;
    case Operator::multiply:
      return left * right;
    case Operator::power:
      return float_power(left, right);
    default:
      break;
  }
  if (right == 0.0) fail("division by zero");
  if (operation == Operator::divide) return left / right;
  double remainder = std::fmod(left, right);
  if (remainder != 0.0 && (remainder < 0) != (right < 0)) remainder += right;
  if (operation == Operator::modulo) return remainder == 0.0 ? std::copysign(0.0, right) : remainder;
  return std::round((left - remainder) / right);
}

Value add_lists(Budget& budget, const List& left, const List& right) {
  budget.require((uint64_t{left.items.size()} + right.items.size()) * sizeof(Value));
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return make_list(budget, std::move(items), left.tuple);
}

Value repeat(Budget& budget, const Value& subject, int64_t times) {
  const uint64_t count = times < 0 ? 0 : static_cast<uint64_t>(times);
  const String* string = subject.string();
  const uint64_t unit =
      string != nullptr ? string->text.size() : subject.list()->items.size() * sizeof(Value);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(unit, count, &bytes)) bytes = std::numeric_limits<uint64_t>::max();
  budget.require(bytes);
  const uint64_t copies = unit == 0 ? 0 : count;
  if (string != nullptr) {
    // A string has at least as many bytes as quoted ranges, so this product cannot overflow where `bytes` did
    // not.
    budget.require(bytes + copies * string->quotes.ranges().size() * sizeof(Quotes::Range));
    QuotedText text;
    text.text.reserve(bytes);
    for (uint64_t i = 0; i < copies; ++i) text.append(*string, 0, unit);
    return make_string(budget, std::move(text));
  }
  const List& list = *subject.list();
  std::vector<Value> items;
  for (uint64_t i = 0; i < copies; ++i) items.insert(items.end(), list.items.begin(), list.items.end());
  return make_list(budget, std::move(items), list.tuple);
}

bool is_sequence(const Value& value) { return value.string() != nullptr || value.list() != nullptr; }

Value concatenate(Budget& budget, const Value& left, const Value& right) {
  TextBuilder text(budget);
  append_text(text, left);
  append_text(text, right);
  return std::move(text).value();
}

}  // namespace

Value apply_operator(Budget& budget, Operator operation, const Value& left, const Value& right) {
  budget.spend(1);
  if (operation == Operator::concatenate) return concatenate(budget, left, right);
  if (operation == Operator::add) {
    if (left.string() != nullptr && right.string() != nullptr) return concatenate(budget, left, right);
    if (left.list() != nullptr && right.list() != nullptr && left.list()->tuple == right.list()->tuple) {
      return add_lists(budget, *left.list(), *right.list());
    }
  }
  if (operation == Operator::modulo && left.string() != nullptr)
    return format_percent(budget, *left.string(), right);
  const std::optional<int64_t> a = as_integer(left);
  const std::optional<int64_t> b = as_integer(right);
  if (a && b) return integer_arithmetic(operation, *a, *b);
  if (operation == Operator::multiply) {
    if (is_sequence(left) && b) return repeat(budget, left, *b);
    if (is_sequence(right) && a) return repeat(budget, right, *a);
  }
  const std::optional<double> x = as_number(left);
  const std::optional<double> y = as_number(right);
  if (x && y) return float_arithmetic(operation, *x, *y);
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  fail(fmt::format("'{}' does not work on {} and {}", symbol_of(operation), type_name(left),
                   type_name(right)));
}

bool apply_comparison(Budget& budget, Operator operation, const Value& left, const Value& right) {
  switch (operation) {
    case Operator::equal:
      return equal(budget, left, right);
    case Operator::not_equal:
      return !equal(budget, left, right);
    case Operator::in:
      return contains(budget, right, left);
    case Operator::not_in:
      return !contains(budget, right, left);
    default:
      break;
  }
  bool ordered = true;
  const int order = compare(budget, left, right, ordered);
  if (!ordered) return false;
  switch (operation) {
    case Operator::less:
      return order < 0;
    case Operator::less_equal:
      return order <= 0;
    case Operator::greater:
      return order > 0;
    default:
      return order >= 0;
  }
}

Value negate(const Value& value) {
  if (const std::optional<int64_t> integer = as_integer(value)) {
    int64_t result = 0;
    return checked(__builtin_sub_overflow(int64_t{0}, *integer, &result), result);
  }
  if (const double* number = value.get<double>()) return -*number;
  if (value.is_undefined()) fail_undefined(value);
  fail(fmt::format("{} has no sign", described(value)));
}

void spend_search(Budget& budget, size_t text, size_t wanted) {
  uint64_t comparisons = 0;
  if (__builtin_mul_overflow(uint64_t{text}, uint64_t{wanted} + 1, &comparisons)) {
    comparisons = std::numeric_limits<uint64_t>::max() / 2;
  }
  budget.spend_bytes(comparisons / 4);
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  if (const String* string = container.string()) {
    const String* wanted = item.string();
    if (wanted == nullptr) {
      if (item.is_undefined()) fail_undefined(item);
      fail(fmt::format("a string cannot contain {}", described(item)));
    }
    spend_search(budget, string->text.size(), wanted->text.size());
    return string->text.find(wanted->text) != std::string::npos;
  }
  if (const List* list = container.list()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& other) { return equal(budget, other, item); });
  }
  if (const Dict* dict = container.dict()) return find_key(budget, *dict, item) != nullptr;
  if (container.is_undefined()) return false;
  fail(fmt::format("{} contains nothing", described(container)));
}

size_t clamp_index(int64_t index, size_t size) {
  if (index < 0) {
    const uint64_t from_end = uint64_t{0} - static_cast<uint64_t>(index);
    return from_end >= size ? 0 : size - static_cast<size_t>(from_end);
  }
  return std::min(static_cast<size_t>(index), size);
}

namespace {

std::optional<int64_t> slice_bound(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (value.is_undefined()) fail_undefined(value);
  if (const std::optional<int64_t> integer = as_integer(value)) return integer;
  fail(fmt::format("a slice needs integers, found {}", described(value)));
}

// The positions that a slice selects: first, first + step, … (count of them).
struct SliceRange {
  size_t first = 0;
  size_t count = 0;
  int64_t step = 1;
};

SliceRange slice_range(size_t size, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step) {
  if (step == 0) fail("the step of a slice is zero");
  SliceRange range;
  range.step = step;
  if (step > 0) {
    const size_t begin = start ? clamp_index(*start, size) : 0;
    const size_t end = stop ? clamp_index(*stop, size) : size;
    range.first = begin;
    if (end > begin) range.count = (end - begin - 1) / static_cast<size_t>(step) + 1;
    return range;
  }
  // With a negative step, bounds lie between -1 (before the first item) and size - 1.
  const auto length = static_cast<int64_t>(size);
  const auto clamp_down = [length](int64_t index) {
    if (index < 0) return std::max<int64_t>(index < -length ? -1 : index + length, -1);
    return std::min(index, length - 1);
  };
  const int64_t begin = start ? clamp_down(*start) : length - 1;
  const int64_t end = stop ? clamp_down(*stop) : -1;
  if (begin > end) {
    const uint64_t stride = uint64_t{0} - static_cast<uint64_t>(step);
    range.first = static_cast<size_t>(begin);
    range.count = static_cast<size_t>((static_cast<uint64_t>(begin - end) - 1) / stride + 1);
  }
  return range;
}

}  // namespace

Value slice(Budget& budget, const Value& object, const Value& start, const Value& stop, const Value& step) {
  const std::optional<int64_t> from = slice_bound(start);
  const std::optional<int64_t> to = slice_bound(stop);
  const int64_t stride = slice_bound(step).value_or(1);
  if (const List* list = object.list()) {
    const SliceRange range = slice_range(list->items.size(), from, to, stride);
    std::vector<Value> items;
    items.reserve(range.count);
    for (size_t i = 0; i < range.count; ++i) {
      items.push_back(list->items[range.first + i * static_cast<size_t>(range.step)]);
    }
    return make_list(budget, std::move(items), list->tuple);
  }
  if (const String* string = object.string()) {
    const std::string_view text = string->text;
    budget.spend_bytes(text.size());
    const size_t size = count_characters(text);
    const SliceRange range = slice_range(size, from, to, stride);
    if (stride == 1) {
      const size_t begin = byte_offset(text, range.first);
      const std::string_view rest = text.substr(begin);
      return make_part(budget, *string, rest.substr(0, byte_offset(rest, range.count)));
    }
    budget.require(uint64_t{size} * sizeof(uint32_t));
    std::vector<uint32_t> offsets;
    offsets.reserve(size);
    for (size_t position = 0; position < text.size(); position += character_at(text, position).bytes) {
      offsets.push_back(static_cast<uint32_t>(position));
    }
    QuotedText picked;
    for (size_t i = 0; i < range.count; ++i) {
      const size_t position = offsets[range.first + i * static_cast<size_t>(range.step)];
      picked.append(*string, position, position + character_at(text, position).bytes);
    }
    return make_string(budget, std::move(picked));
  }
  if (object.is_undefined()) fail_undefined(object);
  return {};
}

}  // namespace tessera::jinja
