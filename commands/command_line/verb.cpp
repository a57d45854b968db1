#include "commands/command_line/verb.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "commands/command_line/nearest_name.h"

namespace tessera {

namespace {

std::string spelled(const Option& option) {
  std::string text = option.letter != 0 ? fmt::format("-{}, --{}", option.letter, option.name)
                                        : fmt::format("    --{}", option.name);
  if (option.value[0] != '\0') text += fmt::format(" {}", option.value);
  return text;
}

}  // namespace

std::string help_text(const Verb& verb) {
  std::string text = fmt::format("Usage: {}\n\n{}\n", verb.usage, verb.summary);
  size_t width = 0;
  for (const Option& option : verb.options) width = std::max(width, spelled(option).size());
  const char* group = nullptr;
  for (const Option& option : verb.options) {
    if (group == nullptr || std::strcmp(group, option.group) != 0) {
      group = option.group;
      text += fmt::format("\n{}\n", group);
    }
    text += fmt::format("  {:<{}}  {}", spelled(option), width, option.help);
    if (option.fallback[0] != '\0') text += fmt::format(" [{}]", option.fallback);
    text += '\n';
  }
  return text;
}

std::string option_hint(const Verb& verb, std::string_view unknown) {
  const bool is_word = unknown.substr(0, 2) == "--";
  const std::string_view name = unknown.substr(is_word ? 2 : 1);
  std::string meant;
  std::vector<std::string> names;
  for (const Option& option : verb.options) {
    const std::string_view own = names.emplace_back(option.name);
    // "-temp", and the longest of those that "--top-k-most" begins with; "kv" says too little to be one.
    const bool begins =
        is_word && own.size() > 2 && name.substr(0, own.size() + 1) == fmt::format("{}-", own);
    if (name == own || (begins && own.size() > meant.size())) meant = own;
  }
  // Letters such as "-cnv" are another program's abbreviations: what they resemble is not what was meant.
  if (meant.empty() && is_word) meant = nearest_name(name, names);
  return meant.empty() ? "" : fmt::format(", did you mean --{}?", meant);
}

}  // namespace tessera
