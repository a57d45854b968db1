#include "engine/models/built_in_templates.h"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <nlohmann/json.hpp>

#include "engine/models/families.h"

namespace tessera {

namespace {

struct NamedText {
  std::string_view name;
  std::string_view text;
};
constexpr NamedText kTexts[] = {
#include "chat_templates.inc"  // made by cmake/chat_templates.cmake
};

bool applies(const BuiltInTemplate& each, const Hyperparameters& h, const nlohmann::json& generation) {
  if (each.vocabulary != 0 && each.vocabulary != h.vocabulary) return false;
  if (each.field.empty()) return true;
  if (!generation.is_object()) return false;
  const auto found = generation.find(std::string(each.field));
  return found != generation.end() && (each.value.empty() || *found == each.value);
}

}  // namespace

const BuiltInTemplate* find_built_in_template(const Family& family, const Hyperparameters& h,
                                              const nlohmann::json& generation) {
  for (const BuiltInTemplate& each : family.chat_templates)
    if (applies(each, h, generation)) return &each;
  return nullptr;
}

std::string built_in_text(const BuiltInTemplate& chat_template) {
  const auto* found = std::find_if(std::begin(kTexts), std::end(kTexts),
                                   [&](const NamedText& each) { return each.name == chat_template.file; });
  assert(found != std::end(kTexts));
  return std::string(found->text);
}

}  // namespace tessera
