// Reads checkpoints that torch.save wrote, pytorch_model.bin: tensors in a zip archive, none of its code.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/safetensors/safetensors.h"

namespace tessera {

// The tensors of one such file whose bytes are already in memory and outlive the result. Tensors are views of
// those bytes; ones that lie there in another order are copied. file names it in errors. Throws FileError.
std::vector<CheckpointTensor> parse_pytorch(std::span<const std::byte> bytes, const std::string& file);

inline constexpr CheckpointFormat kPytorchFormat = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                                    parse_pytorch};

}  // namespace tessera
