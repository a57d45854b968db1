// Files in a zip archive that lie there as they are: what torch.save writes. Compressed ones are refused, so
// that every file is a part of the archive's own bytes.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "gguf-like-format/file_error.h"

namespace tessera {

// The files by name. bytes outlive the result; file names the archive in errors. Throws FileError.
std::map<std::string_view, std::span<const std::byte>> parse_zip(std::span<const std::byte> bytes,
                                                                 const std::string& file);

}  // namespace tessera
