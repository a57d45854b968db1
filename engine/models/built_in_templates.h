// Chat templates for families whose checkpoints have none: texts in prompts/, which are part of the program.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace tessera {

struct Family;
struct Hyperparameters;

// When a family's model is one for conversations without saying how they are written.
struct BuiltInTemplate {
  std::string_view file;            // in prompts/
  std::string_view field = {};      // of generation_config.json, that such models have; empty: all are
  std::string_view value = {};      // that the field has then; empty: any
  uint64_t vocabulary = 0;          // that such models have; 0: any
  std::string_view also_ends = {};  // a token that ends replies beside those of the settings; empty: none
};

// The template of a family's model that has none of its own; nullptr when there is none for it.
// generation: the object of generation_config.json, or null.
const BuiltInTemplate* find_built_in_template(const Family& family, const Hyperparameters& hyperparameters,
                                              const nlohmann::json& generation);

// Its text.
std::string built_in_text(const BuiltInTemplate& chat_template);

}  // namespace tessera
