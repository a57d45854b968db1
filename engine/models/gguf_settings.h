// Settings of GGUF files that only one architecture has.
#pragma once

#include <array>
#include <string_view>

#include "gguf-like-format/model_header.h"

namespace tessera {

class GgufMetadata;

// Each adds to hyperparameters whose other fields are read what its architecture's keys say, or what holds
// for every file of it. Throws FileError for values out of range.
void read_granite_gguf(const GgufMetadata& metadata, Hyperparameters& h);
void read_gemma_gguf(const GgufMetadata& metadata, Hyperparameters& h);
void read_gemma2_gguf(const GgufMetadata& metadata, Hyperparameters& h);
void read_gemma3_gguf(const GgufMetadata& metadata, Hyperparameters& h);
void read_qwen_gguf(const GgufMetadata& metadata, Hyperparameters& h);
void read_baichuan_gguf(const GgufMetadata& metadata, Hyperparameters& h);

// The exponent of the least slope of Baichuan's models of 13B.
inline constexpr double kBaichuanAlibi = 8;

// Keys behind the architecture's name that these read and others must leave neutral.
inline constexpr std::array<std::string_view, 4> kGraniteKeys{"attention.scale", "embedding_scale",
                                                              "residual_scale", "logit_scale"};
inline constexpr std::array<std::string_view, 1> kGemmaKeys{"attention.scale"};
inline constexpr std::array<std::string_view, 3> kGemma2Keys{"attention.scale", "attn_logit_softcapping",
                                                             "final_logit_softcapping"};
inline constexpr std::array<std::string_view, 2> kGemma3Keys{"attention.scale", "final_logit_softcapping"};

}  // namespace tessera
