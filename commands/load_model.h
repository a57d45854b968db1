// Opens the model and the session that the flags choose, and says how much memory they take.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "commands/command_line/arguments.h"
#include "engine/model.h"
#include "engine/session.h"

namespace tessera {

// --threads; 0: all cores, as with -1 and where it is not given. Throws UsageError.
size_t thread_count(const Arguments& arguments);

// --backend, --gpu-layers, --isa, --threads, --ctx, --kv (not of a verb with --compare), --kv-first-layers,
// --batch and --memory-check. Throws UsageError.

SessionOptions session_options(const Arguments& arguments);

// An open model file and what must live as long as it does.
struct OpenFile {
  std::unique_ptr<TessFile> file;
  std::shared_ptr<const void> needs;
};

// The .tess file at path, or the checkpoint there, which is converted on its first use; --no-mmap, --threads
// and
// --cache-size count where the verb has them. Says on stderr what is done. Throws UsageError or
// std::runtime_error.
OpenFile open_model_file(const std::string& path, const Arguments& arguments);

// The limit that --cache-size, or else TESSERA_CACHE_SIZE, sets; nothing where neither is given. Throws
// UsageError.
std::optional<uint64_t> cache_limit(const Arguments& arguments);

// The model at path, as open_model_file opens it, or the embedded model when there is none; as --no-mmap and
// --mlock, --chat-template and --rope-scaling with its options say. Throws UsageError or std::runtime_error.
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
