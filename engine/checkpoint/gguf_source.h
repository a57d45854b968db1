// GGUF files as checkpoints: their tensors are read as the floats that their blocks stand for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint_source.h"

namespace tessera {

// Whether path is a regular file that begins as GGUF files do or is named like one.
bool is_gguf_file(const std::string& path);

// Opens one file, or all parts of a model by the first. Throws FileError naming the file and key or tensor
// for anything missing, broken or not supported.
std::unique_ptr<CheckpointSource> open_gguf_file(const std::string& path);

// The file at path, and behind it the other parts that are there when it is named like the first of several.
std::vector<std::string> gguf_files(const std::string& path);

}  // namespace tessera
