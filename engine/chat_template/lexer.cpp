#include "engine/chat_template/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/chat_template/characters.h"
#include "engine/chat_template/chat_template.h"

namespace tessera::jinja {

namespace {

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_decimal(char c) { return c >= '0' && c <= '9'; }
bool is_name_part(char c) { return is_name_start(c) || is_decimal(c); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) {
      const size_t tag = next_tag(position_);
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      const bool output = tag < source_.size() && source_[tag + 1] == '{';
      add_text(position_, tag, tag < source_.size() ? sign : '\0', tag < source_.size() && !output);
      if (tag == source_.size()) break;
      advance(tag);
      const size_t inside = tag + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      if (source_[tag + 1] == '#') {
        skip_comment(inside);
      } else if (size_t raw_start = 0; !output && is_raw_tag(inside, "raw", false, raw_start)) {
        copy_raw(raw_start);
      } else {
        add(output ? TokenKind::output_begin : TokenKind::block_begin, tag, inside);
        advance(inside);
        read_tag(output);
      }
    }
    add(TokenKind::end, source_.size(), source_.size());
    return std::move(tokens_);
  }

 private:
  size_t next_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string_view::npos; at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() &&
          (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#')) {
        return at;
      }
    }
    return source_.size();
  }

  // Goes on to this position and counts the lines between.
  void advance(size_t to) {
    line_ += static_cast<uint32_t>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                              source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    position_ = to;
  }

  void add(TokenKind kind, size_t begin, size_t end) {
    tokens_.push_back({kind, line_, source_.substr(begin, end - begin)});
  }

  bool has(size_t at, std::string_view wanted) const { return source_.substr(at, wanted.size()) == wanted; }

  size_t skip_space(size_t at) const { return at + leading_space(source_.substr(at)); }

  // Adds the text before a tag (or the end). A "-" at the tag's beginning strips white space at the text's
  // end. The blanks before a statement or comment that begins its line are dropped, unless the tag is marked
  // "+".
  void add_text(size_t begin, size_t end, char sign, bool block) {
    std::string_view text = source_.substr(begin, end - begin);
    if (sign == '-') {
      text.remove_suffix(trailing_space(text));
    } else if (sign != '+' && block) {
      const size_t newline = text.rfind('\n');
      const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
      const bool at_line_start = line_start > 0 || begin == 0 || source_[begin - 1] == '\n';
      if (at_line_start && leading_space(text.substr(line_start)) == text.size() - line_start) {
        text = text.substr(0, line_start);
      }
    }
    if (!text.empty()) tokens_.push_back({TokenKind::text, line_, text});
  }

  // The position at which text goes on after the closing "%}" or "#}" at `at`; `sign` is the character before
  // it.
  size_t after_close(size_t at, char sign) const {
    const size_t next = at + 2;
    if (sign == '-') return skip_space(next);
    if (sign != '+' && next < source_.size() && source_[next] == '\n') return next + 1;
    return next;
  }

  void skip_comment(size_t inside) {
    const size_t close = source_.find("#}", inside);
    if (close == std::string_view::npos) fail_at_line(line_, "the comment is not closed by #}");
    advance(after_close(close, close > inside ? source_[close - 1] : '\0'));
  }

  // Whether `word` and the end of the tag follow; sets `next` to the position at which text goes on after the
  // tag.
  bool is_raw_tag(size_t inside, std::string_view word, bool closing, size_t& next) const {
    size_t at = skip_space(inside);
    if (!has(at, word)) return false;
    at = skip_space(at + word.size());
    char sign = '\0';
    if (has(at, "-%}") || (closing && has(at, "+%}"))) sign = source_[at++];
    if (!has(at, "%}")) return false;
    // The newline after {% raw %} belongs to the text.
    next = closing || sign == '-' ? after_close(at, sign) : at + 2;
    return true;
  }

  void copy_raw(size_t start) {
    const uint32_t first_line = line_;
    advance(start);
    for (size_t at = source_.find("{%", start); at != std::string_view::npos;
         at = source_.find("{%", at + 2)) {
      const char sign = at + 2 < source_.size() ? source_[at + 2] : '\0';
      const size_t inside = at + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      size_t next = 0;
      if (is_raw_tag(inside, "endraw", true, next)) {
        add_text(start, at, sign, true);
        advance(next);
        return;
      }
    }
    fail_at_line(first_line, "the raw block is not closed by endraw");
  }

  // Reads the tokens up to the end of the tag.
  void read_tag(bool output) {
    const uint32_t first_line = line_;
    const std::string_view close = output ? "}}" : "%}";
    std::string open_brackets;
    while (true) {
      advance(skip_space(position_));
      if (position_ >= source_.size()) {
        fail_at_line(first_line, fmt::format("the tag is not closed by {}", close));
      }
      if (open_brackets.empty()) {
        const char first = source_[position_];
        const char sign =
            (first == '-' || (first == '+' && !output)) && has(position_ + 1, close) ? first : '\0';
        const size_t at = position_ + (sign == '\0' ? 0 : 1);
        if (has(at, close)) {
          size_t next = at + 2;
          if (!output || sign == '-') next = after_close(at, sign);
          add(output ? TokenKind::output_end : TokenKind::block_end, position_, at + 2);
          advance(next);
          return;
        }
      }
      read_token(open_brackets);
    }
  }

  void read_token(std::string& open_brackets) {
    const char first = source_[position_];
    if (is_name_start(first)) {
      size_t end = position_;
      while (end < source_.size() && is_name_part(source_[end])) ++end;
      finish(TokenKind::name, end);
    } else if (is_decimal(first)) {
      read_number();
    } else if (first == '\'' || first == '"') {
      size_t end = position_ + 1;
      while (end < source_.size() && source_[end] != first) end += source_[end] == '\\' ? 2 : 1;
      if (end >= source_.size()) fail_at_line(line_, "the string is not closed");
      finish(TokenKind::string, end + 1);
    } else {
      read_symbol(open_brackets);
    }
  }

  void read_number() {
    const auto digits_end = [this](size_t at) {
      while (at < source_.size() && (is_decimal(source_[at]) || source_[at] == '_')) ++at;
      return at;
    };
    size_t end = digits_end(position_);
    if (has(position_, "0") && position_ + 1 < source_.size() &&
        std::string_view("xXoObB").find(source_[position_ + 1]) != std::string_view::npos) {
      end = position_ + 2;
      while (end < source_.size() && is_name_part(source_[end])) ++end;
      finish(TokenKind::integer, end);
      return;
    }
    bool fraction = false;
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    if (!after_dot) {
      if (has(end, ".") && end + 1 < source_.size() && is_decimal(source_[end + 1])) {
        end = digits_end(end + 1);
        fraction = true;
      }
      if (has(end, "e") || has(end, "E")) {
        const size_t sign = has(end + 1, "+") || has(end + 1, "-") ? 1 : 0;
        if (end + 1 + sign < source_.size() && is_decimal(source_[end + 1 + sign])) {
          end = digits_end(end + 1 + sign);
          fraction = true;
        }
      }
    }
    finish(fraction ? TokenKind::number : TokenKind::integer, end);
  }

  void read_symbol(std::string& open_brackets) {
    static constexpr std::array<std::string_view, 26> symbols = {
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view symbol : symbols) {
      if (!has(position_, symbol)) continue;
      const char c = symbol[0];
      if (c == '(' || c == '[' || c == '{') open_brackets += c;
      if (c == ')' || c == ']' || c == '}') {
        const char opening = c == ')' ? '(' : (c == ']' ? '[' : '{');
        if (open_brackets.empty() || open_brackets.back() != opening) {
          fail_at_line(line_, fmt::format("unexpected '{}'", c));
        }
        open_brackets.pop_back();
      }
      finish(TokenKind::symbol, position_ + symbol.size());
      return;
    }
    fail_at_line(line_, fmt::format("unexpected character '{}'",
                                    source_.substr(position_, character_at(source_, position_).bytes)));
  }

  void finish(TokenKind kind, size_t end) {
    add(kind, position_, end);
    advance(end);
  }

  std::string_view source_;
  size_t position_ = 0;
  uint32_t line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::string normalize_newlines(std::string_view source) {
  std::string normal;
  normal.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      normal += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      normal += source[i];
    }
  }
  if (!normal.empty() && normal.back() == '\n') normal.pop_back();
  return normal;
}

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

void fail_at_line(uint32_t line, std::string_view message) {
  constexpr size_t kMostMessageBytes = 400;
  std::string clean;
  for (size_t position = 0; position < message.size();) {
    const Character next = character_at(message, position);
    if (clean.size() + next.bytes > kMostMessageBytes) {
      clean += "…";
      break;
    }
    if (next.code == kNoCharacter) {
      clean += '?';
    } else if (next.code < 0x20 || (next.code >= 0x7F && next.code < 0xA0) || next.code == 0x2028 ||
               next.code == 0x2029) {
      clean += ' ';
    } else {
      clean += message.substr(position, next.bytes);
    }
    position += next.bytes;
  }
  throw TemplateError(fmt::format("chat template line {}: {}", line, clean));
}

}  // namespace tessera::jinja
