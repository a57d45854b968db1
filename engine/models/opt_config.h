// Reads the config.json of OPT.
#pragma once

#include "engine/models/families.h"

namespace tessera {

// A ConfigReader.
Hyperparameters read_opt_config(const nlohmann::json& document, const JsonFields& config,
                                const HuggingFaceClass& type, std::vector<std::string>& notes);

}  // namespace tessera
