// What people give for a checkpoint that is none, or only a part of one.
#pragma once

#include <string>

namespace tessera {

// Throws FileError, which says what lies at path and what to do, unless a folder lies there that may be a
// Hugging Face checkpoint with all its files.
void refuse_mistaken_path(const std::string& path);

}  // namespace tessera
