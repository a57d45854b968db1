// Zeroed memory straight from the system: what is sized for the worst case costs nothing until it is touched.
#pragma once

#include <cstddef>

namespace tessera::cpu {

class ReservedMemory {
 public:
  ReservedMemory() = default;
  explicit ReservedMemory(size_t bytes);  // base() is null when the system has none; 0 bytes is allowed
  ~ReservedMemory();
  ReservedMemory(ReservedMemory&& other) noexcept;
  ReservedMemory& operator=(ReservedMemory&& other) noexcept;

  std::byte* base() const { return base_; }  // aligned to a page
  size_t size() const { return bytes_; }

 private:
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace tessera::cpu
