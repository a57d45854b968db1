// The values of literals in a template's tags.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera::jinja {

// Decodes a string literal, quotes included, with Python's escapes. Throws TemplateError for an escape that
// is not a character.
std::string decode_string(std::string_view quoted, uint32_t line);
// Reads digits with optional underscores and a prefix 0x, 0o or 0b; nothing when malformed or above 2^63 - 1.
std::optional<int64_t> parse_integer(std::string_view text);
std::optional<double> parse_number(std::string_view text);

}  // namespace tessera::jinja
