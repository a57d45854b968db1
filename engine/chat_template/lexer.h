// Cuts a template into text, tags and the words inside tags, with Jinja's white-space control as chat
// templates expect it: trim_blocks and lstrip_blocks are on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::jinja {

enum class TokenKind : uint8_t {
  text,
  output_begin,  // {{
  output_end,
  block_begin,  // {%
  block_end,
  name,
  string,   // with its quotes and escapes
  integer,  // as written
  number,   // with a fraction or an exponent
  symbol,
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  uint32_t line = 0;
  std::string_view text;  // a view into the source
};

// Newlines become "\n" and one at the very end is dropped, as Jinja does before anything else.
std::string normalize_newlines(std::string_view source);

// The source must outlive the tokens. The last token is of kind end. Throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

// A TemplateError with its line number, all on one line and of bounded length.
[[noreturn]] void fail_at_line(uint32_t line, std::string_view message);

}  // namespace tessera::jinja
