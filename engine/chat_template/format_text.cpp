#include "engine/chat_template/format_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/characters.h"
#include "engine/chat_template/literals.h"

namespace tessera::jinja {

namespace {

constexpr uint64_t kMostWidth = 10000;

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

void append_string(TextBuilder& out, const Spec& spec, const String& string) {
  if ((spec.type != '\0' && spec.type != 's') || spec.align == '=' || spec.sign != '\0' || spec.alternate ||
      spec.grouping != '\0')
    fail("a format for numbers is given a string");
  std::string_view text = string.text;
  out.budget().spend_bytes(text.size());
  if (spec.precision) text = text.substr(0, byte_offset(text, *spec.precision));
  append_padded(out, spec, string, text, '<');
}

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

// Appends a number whose digits, without a sign, are given.
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

// The text of repr(), or of ascii() with characters beyond ASCII as escapes.
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

class BraceFormatter {
 public:
  BraceFormatter(Budget& budget, const FormatArguments& arguments) : budget_(budget), arguments_(arguments) {}

  void run(TextBuilder& out, const String& whole, std::string_view text, size_t nesting) {
    for (size_t at = 0; at < text.size();) {
      const size_t brace = std::min(text.find_first_of("{}", at), text.size());
      out.append_part(whole, text.substr(at, brace - at));
      if (brace == text.size()) return;
      if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
        out.append_part(whole, text.substr(brace, 1));
        at = brace + 2;
        continue;
      }
      if (text[brace] == '}') fail("a format has a single '}'");
      at = field(out, whole, text, brace + 1, nesting);
    }
  }

 private:
  // Appends the field that begins at `begin`; returns the place behind its "}".
  size_t field(TextBuilder& out, const String& whole, std::string_view text, size_t begin, size_t nesting) {
    if (nesting > 1) fail("the fields of a format are nested too deeply");
    size_t open = 1;
    bool in_brackets = false;
    size_t mark = std::string_view::npos;  // the "!" or ":" behind the name
    size_t end = begin;
    for (; end < text.size(); ++end) {
      const char c = text[end];
      if (mark == std::string_view::npos) {
        if (c == '[') in_brackets = true;
        if (c == ']') in_brackets = false;
        if (!in_brackets && (c == '!' || c == ':')) mark = end;
      }
      if (c == '{') ++open;
      if (c == '}' && --open == 0) break;
    }
    if (end == text.size()) fail("a format has a '{' without '}'");
    std::string_view rest = text.substr(begin, end - begin);
    const std::string_view name = rest.substr(0, mark == std::string_view::npos ? mark : mark - begin);
    rest.remove_prefix(name.size());
    Value value = look_up(name);
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2 || std::string_view("rsa").find(rest[1]) == std::string_view::npos ||
          (rest.size() > 2 && rest[2] != ':'))
        fail("a conversion in a format is one of !r, !s and !a");
      if (rest[1] == 's') {
        Value storage;
        text_of(budget_, value, storage);
        value = storage;
      } else {
        value = repr_of(budget_, value, rest[1] == 'a');
      }
      rest.remove_prefix(2);
    }
    if (!rest.empty()) rest.remove_prefix(1);  // the colon
    TextBuilder spec(budget_);
    run(spec, whole, rest, nesting + 1);
    const Value spec_value = std::move(spec).value();
    append_formatted(out, spec_value.string()->text, value);
    return end + 1;
  }

  // "", "0", "name", each followed by ".attribute" and "[key]".
  Value look_up(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, first_end));
    for (size_t at = first_end; at < name.size();) {
      size_t end = 0;
      std::string_view key;
      const bool attribute = name[at] == '.';
      if (attribute) {
        end = std::min(name.find_first_of(".[", at + 1), name.size());
        key = name.substr(at + 1, end - at - 1);
      } else {
        const size_t close = name.find(']', at);
        if (close == std::string_view::npos) fail("a format has a '[' without ']'");
        key = name.substr(at + 1, close - at - 1);
        end = close + 1;
      }
      if (key.empty()) fail("an empty attribute in a format");
      const std::optional<int64_t> index =
          !attribute && digits_end(key, 0) == key.size() ? parse_integer(key) : std::nullopt;
      value = get_item(budget_, value, index ? Value(*index) : make_string(budget_, std::string(key)));
      if (value.is_undefined()) fail(fmt::format("a format names '{}', which is not there", key));
      at = end;
    }
    return value;
  }

  Value argument(std::string_view name) {
    const bool number = digits_end(name, 0) == name.size();
    if (!number) {
      for (const auto& [known, value] : arguments_.named)
        if (known == name) return value;
      fail(fmt::format("a format names '{}', which is not given", name));
    }
    if (name.empty() ? counted_ == Counting::by_number : counted_ == Counting::in_order)
      fail("a format counts its fields in two ways");
    counted_ = name.empty() ? Counting::in_order : Counting::by_number;
    const std::optional<int64_t> index = name.empty() ? static_cast<int64_t>(next_++) : parse_integer(name);
    if (!index || static_cast<uint64_t>(*index) >= arguments_.positional.size())
      fail(fmt::format("a format has more fields than the {} values given", arguments_.positional.size()));
    return arguments_.positional[static_cast<size_t>(*index)];
  }

  enum class Counting { not_yet, in_order, by_number };
  Budget& budget_;
  const FormatArguments& arguments_;
  Counting counted_ = Counting::not_yet;
  size_t next_ = 0;
};

class PercentFormatter {
 public:
  PercentFormatter(Budget& budget, const Value& value) : budget_(budget), value_(value) {
    if (const List* list = value.list(); list != nullptr && list->tuple)
      values_ = list->items;
    else
      values_ = {value};
  }

  Value run(const String& format) {
    TextBuilder out(budget_);
    const std::string_view text = format.text;
    for (size_t at = 0; at < text.size();) {
      const size_t percent = std::min(text.find('%', at), text.size());
      out.append_part(format, text.substr(at, percent - at));
      if (percent == text.size()) break;
      at = conversion(out, text, percent + 1);
    }
    if (used_ < values_.size() && value_.dict() == nullptr) fail("a format has fewer fields than values");
    return std::move(out).value();
  }

 private:
  Value next() {
    if (used_ >= values_.size()) fail("a format has more fields than values");
    return values_[used_++];
  }

  // A width or precision: digits, or * for the next value.
  std::optional<uint64_t> number(std::string_view text, size_t& at) {
    if (at < text.size() && text[at] == '*') {
      ++at;
      const Value value = next();
      return checked_width(value.holds<int64_t>() ? std::optional(*value.get<int64_t>()) : std::nullopt);
    }
    return read_width(text, at);
  }

  size_t conversion(TextBuilder& out, std::string_view text, size_t at) {
    std::optional<Value> keyed;
    if (at < text.size() && text[at] == '(') {
      const size_t close = text.find(')', at);
      if (close == std::string_view::npos) fail("a format has a '(' without ')'");
      if (value_.dict() == nullptr) fail("a format with names needs a mapping");
      const std::string_view key = text.substr(at + 1, close - at - 1);
      const Value* found = find_key(budget_, *value_.dict(), key);
      if (found == nullptr) fail(fmt::format("a format names '{}', which is not there", key));
      keyed = *found;
      at = close + 1;
    }
    Spec spec;
    spec.align = '>';
    bool zero = false;
    for (; at < text.size() && std::string_view("-+ #0").find(text[at]) != std::string_view::npos; ++at) {
      if (text[at] == '-') spec.align = '<';
      if (text[at] == '+' || (text[at] == ' ' && spec.sign == '\0')) spec.sign = text[at];
      if (text[at] == '#') spec.alternate = true;
      if (text[at] == '0') zero = true;
    }
    spec.width = number(text, at).value_or(0);
    if (at < text.size() && text[at] == '.') {
      ++at;
      spec.precision = number(text, at).value_or(0);
    }
    if (at < text.size() && std::string_view("hlL").find(text[at]) != std::string_view::npos) ++at;
    if (at == text.size()) fail("a format ends within a field");
    const char type = text[at++];
    if (type == '%') {
      out.append("%");
      return at;
    }
    const Value value = keyed ? *keyed : next();
    if (zero && spec.align != '<' && std::string_view("diouxXeEfFgG").find(type) != std::string_view::npos) {
      spec.align = '=';
      spec.fill = "0";
    }
    append(out, spec, type, value);
    return at;
  }

  void append(TextBuilder& out, Spec spec, char type, const Value& value) {
    if (type == 's' || type == 'r' || type == 'a') {
      Value text;
      if (type == 's')
        text_of(budget_, value, text);
      else
        text = repr_of(budget_, value, type == 'a');
      spec.sign = '\0';
      spec.alternate = false;
      return append_string(out, spec, *text.string());
    }
    if (type == 'c' && value.string() != nullptr) {
      if (count_characters(value.string()->text) != 1) fail("%c needs one character");
      spec.precision.reset();
      spec.sign = '\0';
      spec.alternate = false;
      return append_string(out, spec, *value.string());
    }
    const double* real = value.get<double>();
    const bool whole = value.holds<int64_t>() || value.holds<bool>();
    if (!whole && real == nullptr) fail(fmt::format("%{} needs a number, found {}", type, described(value)));
    if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
      spec.type = type;
      return append_float(out, spec, real != nullptr ? *real : as_double(value));
    }
    if (std::string_view("diuxXoc").find(type) == std::string_view::npos)
      fail(fmt::format("'%{}' is not a format that Python knows", type));
    int64_t integer = 0;
    if (real != nullptr) {
      constexpr double limit = 9223372036854775808.0;
      if (type == 'x' || type == 'X' || type == 'o' || type == 'c')
        fail(fmt::format("%{} needs an integer, found a float", type));
      if (!(*real >= -limit && *real < limit)) fail("a number does not fit 64 bits");
      integer = static_cast<int64_t>(*real);
    } else {
      integer = value.holds<bool>() ? (*value.get<bool>() ? 1 : 0) : *value.get<int64_t>();
    }
    if (spec.precision && type != 'c') {
      // At least so many digits.
      const std::string form = type == 'x' ? "{:x}" : type == 'X' ? "{:X}" : type == 'o' ? "{:o}" : "{}";
      const uint64_t size =
          integer < 0 ? uint64_t{0} - static_cast<uint64_t>(integer) : static_cast<uint64_t>(integer);
      std::string digits = fmt::format(fmt::runtime(form), size);
      if (digits.size() < *spec.precision) digits.insert(0, *spec.precision - digits.size(), '0');
      const std::string prefix = !spec.alternate ? ""
                                 : type == 'x'   ? "0x"
                                 : type == 'X'   ? "0X"
                                 : type == 'o'   ? "0o"
                                                 : "";
      return append_number(out, spec, integer < 0, prefix, std::move(digits), 3);
    }
    spec.precision.reset();
    spec.type = type == 'i' || type == 'u' ? 'd' : type;
    if (spec.type == 'c') spec.sign = '\0';
    append_integer(out, spec, integer);
  }

  static double as_double(const Value& value) {
    return value.holds<bool>() ? (*value.get<bool>() ? 1.0 : 0.0)
                               : static_cast<double>(*value.get<int64_t>());
  }

  Budget& budget_;
  const Value& value_;
  std::vector<Value> values_;
  size_t used_ = 0;
};

}  // namespace

Value format_braces(Budget& budget, const String& format, const FormatArguments& arguments) {
  TextBuilder out(budget);
  BraceFormatter(budget, arguments).run(out, format, format.text, 0);
  return std::move(out).value();
}

Value format_percent(Budget& budget, const String& format, const Value& value) {
  return PercentFormatter(budget, value).run(format);
}

}  // namespace tessera::jinja
