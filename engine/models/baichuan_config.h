// Reads the config.json of Baichuan 1 and 2, of 7B and 13B.
#pragma once

#include "engine/models/families.h"

namespace tessera {

// A ConfigReader.
Hyperparameters read_baichuan_config(const nlohmann::json& document, const JsonFields& config,
                                     const HuggingFaceClass& type, std::vector<std::string>& notes);

}  // namespace tessera
