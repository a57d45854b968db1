// A file under construction beside the file it will become: gone without a trace unless it is committed, even
// when a signal ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/file_target.h"

namespace tessera {

// Owns one temporary file. While any exists, SIGINT, SIGTERM, SIGHUP and SIGQUIT (unless ignored) first
// remove all of them and then act as they would have before; at most 16 can exist at once.
class TemporaryFile : public FileTarget {
 public:
  // Creates an empty file in target's folder, and removes those that killed processes left there for the same
  // target. A target that is a symbolic link is followed; one that exists
  // and is no regular file is refused; the permissions of one that is are kept. Throws FileWriteError.
  explicit TemporaryFile(const std::string& target);
  ~TemporaryFile() override;
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& target() const { return target_; }

  // Gives the file its size with the disk space behind it.
  void reserve(uint64_t bytes) override;
  void write(std::span<const std::byte> bytes, uint64_t offset) override;
  // Makes the content durable and moves it over the target, which a failure leaves as it was.
  void commit() override;

 private:
  std::string target_;
  std::string path_;
  std::string folder_;
  int descriptor_ = -1;
  size_t slot_ = 0;
};

// Removes the temporary files in a folder that nobody holds any more, for whatever target: their processes
// were killed. Returns how many bytes they had.
uint64_t remove_abandoned_files(const std::string& folder);

// Removes every temporary file of this process; async-signal-safe, for a handler that is about to end it.
void remove_temporary_files() noexcept;

}  // namespace tessera
