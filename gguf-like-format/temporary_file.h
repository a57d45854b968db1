// A file under construction beside the file it will become: gone without a trace unless it is committed, even
// when a signal ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "gguf-like-format/file_error.h"

namespace tessera {

// Owns one temporary file. While any exists, SIGINT, SIGTERM, SIGHUP and SIGQUIT (unless ignored) first
// remove all of them and then act as they would have before; at most 16 can exist at once.
class TemporaryFile {
 public:
  // Creates an empty file in target's folder, and removes those that killed processes left there for the same
  // target. A target that is a symbolic link is followed; one that exists
  // and is no regular file is refused; the permissions of one that is are kept. Throws FileError.
  explicit TemporaryFile(const std::string& target);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& target() const { return target_; }

  // Gives the file its size, as zeros, with the disk space behind it. Throws FileError when it is not there.
  void reserve(uint64_t bytes);
  // Writes all of bytes at offset. Throws FileError.
  void write(std::span<const std::byte> bytes, uint64_t offset);
  // Makes the content durable and moves it over the target. Throws FileError and leaves the target as it was.
  void commit();

 private:
  std::string target_;
  std::string path_;
  std::string folder_;
  int descriptor_ = -1;
  size_t slot_ = 0;
};

// Removes every temporary file of this process; async-signal-safe, for a handler that is about to end it.
void remove_temporary_files() noexcept;

}  // namespace tessera
