// Reads the config.json of Gemma 1, 2 and 3 (text).
#pragma once

#include "engine/models/families.h"

namespace tessera {

// A ConfigReader.
Hyperparameters read_gemma_config(const nlohmann::json& document, const JsonFields& config,
                                  const HuggingFaceClass& type, std::vector<std::string>& notes);

}  // namespace tessera
