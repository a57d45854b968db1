// Sizes of memory and files as text.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

// "1.23 GB", "45.6 MB", "789 bytes": powers of 1000.
std::string readable_bytes(uint64_t bytes);

}  // namespace tessera
