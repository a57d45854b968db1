#include "engine/embedded_model.h"

// Defined by embedded_model.S around the file.
extern "C" {
extern const std::byte tessera_embedded_begin[];
extern const std::byte tessera_embedded_end[];
}

namespace tessera {

std::span<const std::byte> embedded_model() { return {tessera_embedded_begin, tessera_embedded_end}; }

}  // namespace tessera
