// A file that exists in this process's memory only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "gguf-like-format/file_target.h"

namespace tessera {

// Owns anonymous memory. Moving keeps the bytes where they are.
class MemoryFile : public FileTarget {
 public:
  explicit MemoryFile(std::string name);  // stands for the file in errors
  ~MemoryFile() override;
  MemoryFile(MemoryFile&& other) noexcept;
  MemoryFile& operator=(MemoryFile&& other) noexcept;

  // Takes the address space; pages come when they are written.
  void reserve(uint64_t bytes) override;
  void write(std::span<const std::byte> bytes, uint64_t offset) override;
  void commit() override;  // from now on the bytes are read-only

  // What was reserved, aligned to 4096 bytes, valid while the object lives. Written in place until commit.
  std::span<std::byte> writable() const;
  std::span<const std::byte> bytes() const { return writable(); }

 private:
  std::string name_;
  std::byte* base_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tessera
