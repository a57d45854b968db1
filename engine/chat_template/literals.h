// The values of literals in a template's tags.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera::jinja {

// Decodes a quoted string with Python's escapes; throws TemplateError for one that names no character.
std::string decode_string(std::string_view quoted, uint32_t line);
// Digits with optional underscores and 0x, 0o, 0b prefixes; nothing when malformed or above 2^63 - 1.
std::optional<int64_t> parse_integer(std::string_view text);
std::optional<double> parse_number(std::string_view text);

}  // namespace tessera::jinja
