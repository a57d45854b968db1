// The formats that hold the weights of Hugging Face folders; of those that a folder has the first one counts.
#pragma once

#include <array>

#include "gguf-like-format/pytorch/pytorch_file.h"
#include "gguf-like-format/safetensors/safetensors.h"

namespace tessera {

inline constexpr std::array kWeightFormats = {kSafetensorsFormat, kPytorchFormat};

}  // namespace tessera
