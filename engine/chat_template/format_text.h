// Python's two ways to fill values into a text: "{} {name}".format(…) and "%s %d" % ….
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/chat_template/value.h"

namespace tessera::jinja {

struct FormatArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// What format.format(*positional, **named) gives. Throws Fault.
Value format_braces(Budget& budget, const String& format, const FormatArguments& arguments);
// What format % value gives: the items of a tuple, the entries of a dict by their keys, or a single value.
// Throws Fault.
Value format_percent(Budget& budget, const String& format, const Value& value);

}  // namespace tessera::jinja
