// The bytes of a whole file, mapped or read into memory, and what happens when a mapped file shrinks or can
// no longer be read.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "gguf-like-format/file_error.h"

namespace tessera {

// Read-only, page-aligned bytes of one regular file. Moving keeps the bytes where they are.
//
// Touching a mapped page whose part of the file is gone raises SIGBUS. The first map() of a process installs
// a handler that writes "tessera: model file changed or could not be read: PATH" to stderr and ends the
// process with exit code 1 when the address lies in a live mapping; any other SIGBUS gets the default action.
// Temporary files are removed either way.
class MappedFile {
 public:
  MappedFile();  // no bytes
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;

  // Maps path; no page is read yet. At most 1024 files can be mapped at once. Throws FileError.
  static MappedFile map(const std::string& path);
  // Reads all of path into anonymous memory (--no-mmap). Throws FileError.
  static MappedFile read(const std::string& path);

  std::span<const std::byte> bytes() const;

 private:
  struct Region;
  explicit MappedFile(std::unique_ptr<Region> region);
  std::unique_ptr<Region> region_;
};

}  // namespace tessera
