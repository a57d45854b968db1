// What tells one state of a checkpoint from another: cheaply by what the file system says about its files,
// surely by a hash of their bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tessera::model_cache {

// A file as the file system knows it. The time of the last change of its state (ctime) cannot be set back, so
// equal stamps mean equal bytes, unless the file was written to right before the stamp was taken.
struct FileStamp {
  std::string path;
  uint64_t bytes = 0;
  int64_t modified = 0;  // nanoseconds since 1970, as are the next
  int64_t changed = 0;
  uint64_t inode = 0;

  bool operator==(const FileStamp&) const = default;
};

// Throws FileError.
FileStamp stamp_of(const std::string& path);

// The files of a checkpoint.
struct SourceFiles {
  std::string path;  // of the checkpoint, absolute
  std::vector<FileStamp> files;

  uint64_t bytes() const;
  bool operator==(const SourceFiles&) const = default;
};

// Throws FileError.
SourceFiles list_source_files(const std::string& checkpoint);

// Whether the files were last written to so long ago that a further write would change their stamps. Waits
// for that where it is a matter of a moment: where times are finer than whole seconds.
bool wait_until_settled(const SourceFiles& source);

// 32 hexadecimal digits: XXH3-128 over all bytes, and in a folder over the names as well. The same for a copy
// of the checkpoint under any other name. progress may be empty. Throws FileError.
std::string content_hash(const SourceFiles& source,
                         const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace tessera::model_cache
