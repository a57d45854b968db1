// Folders as Hugging Face transformers writes them: config.json, safetensors, tokenizer files.
#pragma once

#include <memory>
#include <string>

#include "engine/checkpoint/checkpoint_source.h"

namespace tessera {

// Throws FileError naming the file and field for anything missing, broken or not supported.
std::unique_ptr<CheckpointSource> open_huggingface_folder(const std::string& folder);

// All regular files of the folder but hidden ones and .tess files, by name: any of them may become part of
// the checkpoint. Throws FileError for a folder without config.json.
std::vector<std::string> huggingface_files(const std::string& folder);

}  // namespace tessera
