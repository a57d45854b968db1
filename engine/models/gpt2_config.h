// Reads the config.json of GPT-2.
#pragma once

#include "engine/models/families.h"

namespace tessera {

// A ConfigReader.
Hyperparameters read_gpt2_config(const nlohmann::json& document, const JsonFields& config,
                                 const HuggingFaceClass& type, std::vector<std::string>& notes);

}  // namespace tessera
