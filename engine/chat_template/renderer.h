// Runs a parsed template.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "engine/chat_template/builtins.h"
#include "engine/chat_template/syntax_tree.h"

namespace tessera::jinja {

// Renders the template with these variables as inputs; their values must come from the environment's budget.
// Throws TemplateError with the line at which it failed.
QuotedText render_template(Environment& environment, const Block& block,
                           std::vector<std::pair<std::string_view, Value>> variables);

}  // namespace tessera::jinja
