// Operations on strings that exist both as a filter and as a string method.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "engine/chat_template/value.h"

namespace tessera::jinja {

enum class Side : uint8_t { both, left, right };

// Removes white space from the given sides, or the characters that the string `characters` holds, unless that
// is null or none.
Value strip(Budget& budget, const String& string, const Value* characters, Side side);
// Replaces the first `count` occurrences of `wanted`, all of them when count is negative. An empty `wanted`
// occurs before every character and at the end.
Value replace(Budget& budget, const String& string, std::string_view wanted, const String& replacement,
              int64_t count);
enum class Padding : uint8_t { left, right, both };  // where fill is put
// Puts `fill`, one character, around a string until it has `width` characters, as str.rjust, ljust and center
// do.
Value pad(Budget& budget, const String& string, int64_t width, std::string_view fill, Padding padding);
// Splits as Python's str.splitlines does, at every line end that Unicode knows. The lines are views into the
// text.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

}  // namespace tessera::jinja
