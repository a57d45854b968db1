// Reads the config.json of model types that name their settings as Llama does.
#pragma once

#include "engine/models/families.h"

namespace tessera {

// A ConfigReader. Leaves the family's name to the caller, and biases that a family always has.
Hyperparameters read_llama_config(const nlohmann::json& document, const JsonFields& config,
                                  const HuggingFaceClass& type, std::vector<std::string>& notes);

// The same with Granite's multipliers.
Hyperparameters read_granite_config(const nlohmann::json& document, const JsonFields& config,
                                    const HuggingFaceClass& type, std::vector<std::string>& notes);

// Throws FileError when architectures lists other classes than the type's.
void refuse_other_classes(const JsonFields& config, const HuggingFaceClass& type);

// The size of heads that share the hidden state evenly; the names are of the settings that h has already.
uint64_t head_dim_of_hidden(const JsonFields& config, std::string_view hidden, std::string_view heads,
                            const Hyperparameters& h);

// What many readers share: the class, counts, sizes and biases, everything but rotary positions, windows,
// the tied head and multipliers.
Hyperparameters read_decoder_shape(const nlohmann::json& document, const JsonFields& config,
                                   const HuggingFaceClass& type);

// Theta and scaling from a rope_parameters or rope_scaling object; h.context is what positions reach without.
void read_rope_parameters(const JsonFields& rope, Hyperparameters& h, std::vector<std::string>& notes);

}  // namespace tessera
