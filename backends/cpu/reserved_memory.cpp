#include "backends/cpu/reserved_memory.h"

#include <sys/mman.h>

#include <utility>

namespace tessera::cpu {

ReservedMemory::ReservedMemory(size_t bytes) {
  if (bytes == 0) return;
  void* base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return;
  base_ = static_cast<std::byte*>(base);
  bytes_ = bytes;
}

ReservedMemory::~ReservedMemory() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

ReservedMemory::ReservedMemory(ReservedMemory&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

ReservedMemory& ReservedMemory::operator=(ReservedMemory&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace tessera::cpu
