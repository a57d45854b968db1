// Splits a template into text, tags and the tokens inside tags. White space around tags follows the settings
// for which chat templates are written: trim_blocks and lstrip_blocks are on.
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
  integer,  // with its prefix and underscores
  number,   // with a fraction or an exponent
  symbol,
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  uint32_t line = 0;
  std::string_view text;  // a view into the source
};

// Turns all line ends into "\n" and drops one at the end of the source, as Jinja does before parsing.
std::string normalize_newlines(std::string_view source);

// The tokens of a source with normalized newlines, which must outlive them. The last token is of kind end.
// Throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

// Throws a TemplateError with this line number and message, without control characters and of limited length.
[[noreturn]] void fail_at_line(uint32_t line, std::string_view message);

}  // namespace tessera::jinja
