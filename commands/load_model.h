// Opens the model and the session that the run-time flags ask for, and says what memory they take.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "commands/arguments.h"
#include "engine/model.h"
#include "engine/session.h"

namespace tessera {

// --backend, --gpu-layers, --isa, --threads, --ctx, --kv (not of a verb with --compare), --kv-first-layers
// and --batch. Throws UsageError.
SessionOptions session_options(const Arguments& arguments);

// The file at path, or the embedded model when there is none; --no-mmap and --mlock are honoured.
Model open_model(const std::optional<std::string>& path, const Arguments& arguments);

// The tokenizer of an open file. Throws FileError naming the file.
Tokenizer stored_tokenizer(const TessFile& file);

// Plans memory, prints the plan on stderr, and is ready to run. Throws with the numbers when it
// cannot fit. The model must outlive the session.
std::unique_ptr<Session> open_session(const Model& model, SessionOptions options);

// The plan as open_session prints it: a line for every memory that layers are placed in.
void say_memory(const MemoryFigures& memory);

}  // namespace tessera
