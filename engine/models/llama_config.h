// Reads the config.json of model types that name their settings as Llama does.
#pragma once

#include "engine/models/families.h"

namespace tessera {

// A ConfigReader. Leaves the family's name to the caller, and biases that a family always has.
Hyperparameters read_llama_config(const nlohmann::json& document, const JsonFields& config,
                                  const HuggingFaceClass& type, std::vector<std::string>& notes);

}  // namespace tessera
