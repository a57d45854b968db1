// What filters and string methods of templates share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "engine/chat_template/value.h"

namespace tessera::jinja {

enum class Side : uint8_t { both, left, right };

// Without white space, or without the characters of the string `characters` when that is given, at its sides.
Value strip(Budget& budget, const String& string, const Value* characters, Side side);
// The first `count` places where `wanted` stands (everywhere when negative) replaced; an empty `wanted`
// stands between all characters.
Value replace(Budget& budget, const String& string, std::string_view wanted, const String& replacement,
              int64_t count);
// Lines by every line end that Python knows; views into the text.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

}  // namespace tessera::jinja
