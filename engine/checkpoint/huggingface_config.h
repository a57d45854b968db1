// Reads config.json, generation_config.json and the chat template of a Hugging Face checkpoint folder.
#pragma once

#include <string>
#include <vector>

#include "engine/models/built_in_templates.h"
#include "gguf-like-format/file_error.h"
#include "gguf-like-format/model_header.h"

namespace tessera {

// Hyperparameters, chat settings (template, stop tokens) and generation defaults; tokenizer and quantization
// are left empty. notes receives a line for everything that is read as something else than the files say and
// is harmless. Throws FileError naming file and field for anything missing, of the wrong type, out of range
// or unsupported.
ModelHeader read_huggingface_folder(const std::string& folder, std::vector<std::string>& notes);
ModelHeader read_huggingface_folder(const std::string& folder);

// The chat template of a folder, or else that built in for its model; empty when there is none. Throws
// FileError.
std::string folder_chat_template(const std::string& folder);
// The template that is built in for a folder without its own; nullptr when there is none. Throws FileError.
const BuiltInTemplate* folder_built_in_template(const std::string& folder);

}  // namespace tessera
