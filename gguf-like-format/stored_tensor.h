// A tensor as it lies in a file: a view, never an owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/scheme.h"

namespace tessera {

struct StoredTensor {
  std::string name;
  Scheme scheme = Scheme::f32;
  std::vector<uint64_t> shape;       // [length] or [rows, columns]; logical, without padding
  std::span<const std::byte> bytes;  // exactly stored_bytes(scheme, shape); valid while the file is open

  size_t rows() const { return shape.size() == 2 ? static_cast<size_t>(shape[0]) : 1; }
  size_t columns() const { return static_cast<size_t>(shape.back()); }
};

}  // namespace tessera
