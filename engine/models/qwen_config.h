// Reads the config.json of the first Qwen.
#pragma once

#include "engine/models/families.h"

namespace tessera {

// A ConfigReader.
Hyperparameters read_qwen_config(const nlohmann::json& document, const JsonFields& config,
                                 const HuggingFaceClass& type, std::vector<std::string>& notes);

}  // namespace tessera
