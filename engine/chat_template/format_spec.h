// Python's format specifications, such as "*^9" and "08.3f": how one value is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/chat_template/value.h"

namespace tessera::jinja {

// [[fill]align][sign][#][0][width][grouping][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > ^ =, or nothing: the default of the type
  char sign = '\0';
  bool zeros = false;  // fill numbers with zeros behind their sign
  bool alternate = false;
  uint64_t width = 0;
  char grouping = '\0';
  std::optional<uint64_t> precision;
  char type = '\0';
};

// All functions throw Fault for what Python does not allow.

// A width or precision within what is allowed.
uint64_t checked_width(std::optional<int64_t> number);
// The place behind the digits that begin at `at`.
size_t digits_end(std::string_view text, size_t at);
// Reads a width or precision and goes on behind it; nothing where there are no digits.
std::optional<uint64_t> read_width(std::string_view text, size_t& at);

void append_string(TextBuilder& out, const Spec& spec, const String& string);
// Appends a number whose digits, without a sign, are given. group: digits between separators.
void append_number(TextBuilder& out, Spec spec, bool negative, std::string prefix, std::string digits,
                   size_t group);
void append_float(TextBuilder& out, const Spec& spec, double number);
void append_integer(TextBuilder& out, const Spec& spec, int64_t number);
// Appends a value as format(value, spec) gives it.
void append_formatted(TextBuilder& out, std::string_view spec, const Value& value);
// The text of repr(), or of ascii() with characters beyond ASCII as escapes.
Value repr_of(Budget& budget, const Value& value, bool ascii);

}  // namespace tessera::jinja
