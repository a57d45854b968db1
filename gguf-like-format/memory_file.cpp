#include "gguf-like-format/memory_file.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gguf-like-format/file_error.h"

namespace tessera {

MemoryFile::MemoryFile(std::string name) : name_(std::move(name)) {}

MemoryFile::MemoryFile(MemoryFile&& other) noexcept
    : name_(std::move(other.name_)),
      base_(std::exchange(other.base_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MemoryFile& MemoryFile::operator=(MemoryFile&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(base_, other.base_);
  std::swap(size_, other.size_);
  return *this;
}

MemoryFile::~MemoryFile() {
  if (base_ != nullptr) ::munmap(base_, size_);
}

void MemoryFile::reserve(uint64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  void* memory =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw FileWriteError(fmt::format("{}: {} bytes of memory: {}", name_, bytes, std::strerror(errno)));
  ::madvise(memory, size, MADV_HUGEPAGE);  // fewer page faults and TLB misses; refusal is harmless
  base_ = static_cast<std::byte*>(memory);
  size_ = size;
}

void MemoryFile::write(std::span<const std::byte> bytes, uint64_t offset) {
  if (offset > size_ || bytes.size() > size_ - offset)
    throw FileWriteError(fmt::format("{}: writing at byte {} failed: the file has {}", name_, offset, size_));
  std::copy(bytes.begin(), bytes.end(), base_ + offset);
}

void MemoryFile::commit() { ::mprotect(base_, size_, PROT_READ); }

std::span<std::byte> MemoryFile::writable() const { return {base_, size_}; }

}  // namespace tessera
