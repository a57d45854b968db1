// Where the bytes of a new file go: a file beside the one it will become, or memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tessera {

class FileTarget {
 public:
  virtual ~FileTarget() = default;
  // Takes the room for all of the file, as zeros; called once, before the first write. Throws FileWriteError.
  virtual void reserve(uint64_t bytes) = 0;
  // Writes all of bytes at offset. Throws FileWriteError.
  virtual void write(std::span<const std::byte> bytes, uint64_t offset) = 0;
  // Makes the file what others see; nothing is written after it. Throws FileWriteError.
  virtual void commit() = 0;
};

}  // namespace tessera
