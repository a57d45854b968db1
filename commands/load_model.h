// Opens the model and the session that the flags choose, and says how much memory they take.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "commands/command_line/arguments.h"
#include "engine/model.h"
#include "engine/session.h"

namespace tessera {

// --backend, --gpu-layers, --isa, --threads, --ctx, --kv (not of a verb with --compare), --kv-first-layers
// and --batch. Throws UsageError.
SessionOptions session_options(const Arguments& arguments);

// The file at path, or the embedded model when there is none; as --no-mmap, --mlock and --chat-template
// say. Throws UsageError or FileError.
Model open_model(const std::optional<std::string>& path, const Arguments& arguments);

// The text of a chat template's file, for --chat-template. Throws FileError, also where it cannot be read as
// a template.
std::string read_chat_template(const std::string& path);

// The tokenizer of an open file. Throws FileError naming the file.
Tokenizer stored_tokenizer(const TessFile& file);

// Loads the model, which must outlive the session, and prints the memory plan on stderr. Throws with the
// numbers when it cannot fit.
std::unique_ptr<Session> open_session(const Model& model, SessionOptions options);

// Prints the memory plan on stderr: a line for every memory that layers are placed in.
void say_memory(const MemoryFigures& memory);

}  // namespace tessera
