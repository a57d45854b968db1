#include "engine/chat_template/format_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/chat_template/characters.h"
#include "engine/chat_template/literals.h"

namespace tessera::jinja {

namespace {

constexpr uint64_t kMostWidth = 10000;

}  // namespace

uint64_t checked_width(std::optional<int64_t> number) {
  if (!number || *number < 0 || static_cast<uint64_t>(*number) > kMostWidth)
    fail(fmt::format("a width or precision of a format is at most {}", kMostWidth));
  return static_cast<uint64_t>(*number);
}

size_t digits_end(std::string_view text, size_t at) {
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
  return at;
}

std::optional<uint64_t> read_width(std::string_view text, size_t& at) {
  const size_t end = digits_end(text, at);
  if (end == at) return std::nullopt;
  const std::string_view digits = text.substr(at, end - at);
  at = end;
  return checked_width(parse_integer(digits));
}

namespace {

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) {
    const size_t first = character_at(text, 0).bytes;
    if (first < text.size() && is_align(text[first])) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      at = first + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      at = 1;
    }
  }
  const auto take = [&](std::string_view any) {
    return at < text.size() && any.find(text[at]) != std::string_view::npos ? text[at++] : '\0';
  };
  if (const char sign = take("+- ")) spec.sign = sign;
  spec.alternate = take("#") != '\0';
  if (take("0") != '\0') {
    if (spec.fill == " ") spec.fill = "0";
    spec.zeros = spec.align == '\0';
  }
  spec.width = read_width(text, at).value_or(0);
  spec.grouping = take(",_");
  if (take(".") != '\0') {
    spec.precision = read_width(text, at);
    if (!spec.precision) fail("a format's precision is missing");
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) fail("a format is not one that Python knows");
  return spec;
}

void append_repeated(TextBuilder& out, std::string_view text, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) out.append(text);
}

// Appends a part of `whole` padded to the width.
void append_padded(TextBuilder& out, const Spec& spec, const String& whole, std::string_view part,
                   char default_align) {
  const char align = spec.align == '\0' ? default_align : spec.align;
  const uint64_t size = count_characters(part);
  const uint64_t padding = spec.width > size ? spec.width - size : 0;
  const uint64_t before = align == '>' ? padding : align == '^' ? padding / 2 : 0;
  append_repeated(out, spec.fill, before);
  out.append_part(whole, part);
  append_repeated(out, spec.fill, padding - before);
}

}  // namespace

void append_string(TextBuilder& out, const Spec& spec, const String& string) {
  if ((spec.type != '\0' && spec.type != 's') || spec.align == '=' || spec.sign != '\0' || spec.alternate ||
      spec.grouping != '\0')
    fail("a format for numbers is given a string");
  std::string_view text = string.text;
  out.budget().spend_bytes(text.size());
  if (spec.precision) text = text.substr(0, byte_offset(text, *spec.precision));
  append_padded(out, spec, string, text, '<');
}

namespace {

// Puts a separator between groups of digits, from the end of the leading digits on.
std::string grouped(const std::string& digits, char separator, size_t group) {
  size_t whole = 0;
  while (whole < digits.size() && std::isxdigit(static_cast<unsigned char>(digits[whole])) != 0) ++whole;
  std::string text;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % group == 0) text += separator;
    text += digits[i];
  }
  return text + digits.substr(whole);
}

}  // namespace

void append_number(TextBuilder& out, Spec spec, bool negative, std::string prefix, std::string digits,
                   size_t group) {
  if (spec.zeros) spec.align = '=';
  std::string sign = negative ? "-" : spec.sign == '-' || spec.sign == '\0' ? "" : std::string(1, spec.sign);
  sign += prefix;
  const bool zeros = spec.align == '=' && spec.fill == "0";
  if (spec.grouping != '\0') {
    // Zeros that fill the width are grouped too.
    if (zeros) {
      size_t whole = 0;
      while (whole < digits.size() && std::isxdigit(static_cast<unsigned char>(digits[whole])) != 0) ++whole;
      while (grouped(digits, spec.grouping, group).size() + sign.size() < spec.width) digits.insert(0, "0");
    }
    digits = grouped(digits, spec.grouping, group);
  }
  if (spec.align == '=') {
    const uint64_t size = sign.size() + digits.size();
    out.append(sign);
    append_repeated(out, spec.fill, spec.width > size ? spec.width - size : 0);
    out.append(digits);
    return;
  }
  const Value text = make_string(out.budget(), sign + digits);
  append_padded(out, spec, *text.string(), text.string()->text, '>');
}

void append_float(TextBuilder& out, const Spec& spec, double number) {
  const bool negative = std::signbit(number) && !std::isnan(number);
  const double size = std::fabs(number);
  const char type = spec.type;
  const std::string_view alternate = spec.alternate ? "#" : "";
  std::string digits;
  if (!std::isfinite(number)) {
    digits = std::isnan(number) ? "nan" : "inf";
    if (type == 'F' || type == 'E' || type == 'G')
      for (char& c : digits) c = static_cast<char>(c - 'a' + 'A');
    if (type == '%') digits += '%';
  } else if (type == '\0' && !spec.precision) {
    digits = float_text(size);
  } else if (type == '\0') {
    // As g, but with at least one digit behind the point where there is no exponent.
    const uint64_t precision = std::max<uint64_t>(*spec.precision, 1);
    digits = fmt::format("{:.{}g}", size, precision);
    const bool has_exponent = digits.find('e') != std::string::npos;
    if (!has_exponent && digits.find('.') == std::string::npos) {
      if (digits.size() >= precision) {
        digits = fmt::format("{:.{}e}", size, precision - 1);
        const size_t mark = digits.find('e');
        if (precision > 1) {
          std::string mantissa = digits.substr(0, mark);
          mantissa.erase(mantissa.find_last_not_of('0') + 1);
          if (mantissa.back() == '.') mantissa.pop_back();
          digits = mantissa + digits.substr(mark);
        }
      } else {
        digits += ".0";
      }
    }
  } else if (std::string_view("eEfFgG%n").find(type) != std::string_view::npos) {
    const double shown = type == '%' ? size * 100 : size;
    const char form = type == '%' ? 'f' : type == 'n' ? 'g' : type;
    digits = fmt::format(
        fmt::runtime(fmt::format("{{:{}.{}{}}}", alternate, spec.precision.value_or(6), form)), shown);
    if (type == '%') digits += '%';
  } else {
    fail(fmt::format("the format '{}' is not one of a float", type));
  }
  append_number(out, spec, negative, "", std::move(digits), 3);
}

void append_integer(TextBuilder& out, const Spec& spec, int64_t number) {
  const bool negative = number < 0;
  const uint64_t size =
      negative ? uint64_t{0} - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  if (spec.precision &&
      (spec.type == '\0' || std::string_view("dnxXobc").find(spec.type) != std::string_view::npos))
    fail("the precision of an integer is not allowed");
  switch (spec.type) {
    case '\0':
    case 'd':
    case 'n':
      return append_number(out, spec, negative, "", fmt::format("{}", size), 3);
    case 'x':
      return append_number(out, spec, negative, spec.alternate ? "0x" : "", fmt::format("{:x}", size), 4);
    case 'X':
      return append_number(out, spec, negative, spec.alternate ? "0X" : "", fmt::format("{:X}", size), 4);
    case 'o':
      return append_number(out, spec, negative, spec.alternate ? "0o" : "", fmt::format("{:o}", size), 4);
    case 'b':
      return append_number(out, spec, negative, spec.alternate ? "0b" : "", fmt::format("{:b}", size), 4);
    case 'c': {
      if (negative || size > 0x10FFFF || (size >= 0xD800 && size < 0xE000))
        fail("the number is no character");
      std::string text;
      append_utf8(text, static_cast<uint32_t>(size));
      const Value character = make_string(out.budget(), std::move(text));
      return append_padded(out, spec, *character.string(), character.string()->text, '<');
    }
    default:
      append_float(out, spec, static_cast<double>(number));
  }
}

void append_formatted(TextBuilder& out, std::string_view spec_text, const Value& value) {
  if (spec_text.empty()) return append_text(out, value);
  const Spec spec = parse_spec(spec_text);
  if (const String* string = value.string()) return append_string(out, spec, *string);
  if (const bool* truth = value.get<bool>()) return append_integer(out, spec, *truth ? 1 : 0);
  if (const int64_t* integer = value.get<int64_t>()) return append_integer(out, spec, *integer);
  if (const double* number = value.get<double>()) return append_float(out, spec, *number);
  fail(fmt::format("{} takes no format", described(value)));
}

Value repr_of(Budget& budget, const Value& value, bool ascii) {
  TextBuilder text(budget);
  append_repr(text, value);
  Value repr = std::move(text).value();
  if (!ascii) return repr;
  const String& whole = *repr.string();
  std::string escaped;
  for (size_t at = 0; at < whole.text.size();) {
    const Character next = character_at(whole.text, at);
    if (next.code < 0x80) {
      escaped += whole.text[at];
    } else if (next.code < 0x100) {
      escaped += fmt::format("\\x{:02x}", next.code);
    } else if (next.code < 0x10000) {
      escaped += fmt::format("\\u{:04x}", next.code);
    } else {
      escaped += fmt::format("\\U{:08x}", next.code);
    }
    at += next.bytes;
  }
  return make_changed(budget, whole, std::move(escaped));
}

}  // namespace tessera::jinja
