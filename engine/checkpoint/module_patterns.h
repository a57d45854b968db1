// The patterns by which a checkpoint's settings name layers: plain names and regular expressions.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/strict_json.h"

namespace tessera {

// A regular expression that has to match from the beginning of a name on, not up to its end, as Python's
// re.match does.
class ModulePattern {
 public:
  // where names the setting in errors. Throws FileError for an expression that does not compile.
  ModulePattern(const std::string& expression, const std::string& where);
  ~ModulePattern();
  ModulePattern(ModulePattern&&) noexcept;
  ModulePattern& operator=(ModulePattern&&) noexcept;
  // Throws FileError where matching takes unreasonably long.
  bool matches(std::string_view name) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
  std::string expression_;
  std::string where_;
};

// Layers that are left unpacked, as transformers reads such lists: an entry names a layer if it matches from
// the beginning up to a "." or the end, or if the name ends with it.
class ExcludedModules {
 public:
  ExcludedModules() = default;
  ExcludedModules(const JsonFields& config, std::string_view field);  // the field may be absent
  bool contains(std::string_view module) const;

 private:
  std::vector<std::string> ends_;
  std::vector<ModulePattern> patterns_;
};

// The strings of an array, of which there may be none. Throws FileError for anything else.
std::vector<std::string> string_list(const JsonFields& config, std::string_view field);

}  // namespace tessera
