// The model that is linked into the executable, so that it can answer without any file.
#pragma once

#include <cstddef>
#include <span>

namespace tessera {

// The bytes of a whole .tess file in read-only memory, aligned to 4096 and valid for the life of the process.
// Provided by the CMake target tessera_embedded, which quantizes TESSERA_EMBED_MODEL during the build.
std::span<const std::byte> embedded_model();

}  // namespace tessera
