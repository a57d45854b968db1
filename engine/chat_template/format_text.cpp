#include "engine/chat_template/format_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/characters.h"
#include "engine/chat_template/format_spec.h"
#include "engine/chat_template/literals.h"

namespace tessera::jinja {

namespace {

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
