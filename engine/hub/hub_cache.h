// The hub's cache folder, laid out as huggingface_hub does, so that both share what they download:
// models--OWNER--NAME/{blobs/HASH, refs/REVISION, snapshots/COMMIT/PATH -> ../../blobs/HASH} and
// .locks/models--OWNER--NAME/HASH.lock.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::hub {

// One repository in the cache. Functions that write make the folders they need and throw HubError.
class RepositoryCache {
 public:
  RepositoryCache(const std::string& cache, const std::string& repository);

  const std::string& folder() const { return folder_; }
  std::string blob(std::string_view hash) const;
  std::string snapshot(std::string_view commit) const;
  // The commit that the revision was when it was last asked for; a commit is its own.
  std::optional<std::string> commit_of(const std::string& revision) const;
  void set_commit(const std::string& revision, const std::string& commit) const;
  // Regular files of a snapshot, as sorted paths.
  std::vector<std::string> files(std::string_view commit) const;
  // Puts a file of that snapshot in place, as a relative link to the blob.
  void link(std::string_view commit, const std::string& path, std::string_view hash) const;
  // Makes the folder of the blobs.
  void prepare() const;
  std::string lock_path(std::string_view hash) const;

 private:
  std::string folder_;
  std::string locks_;
};

// An exclusive lock of a blob between processes, released in the end. waiting is called once when another
// process has it. Throws HubError.
class BlobLock {
 public:
  BlobLock(const std::string& path, const std::function<void()>& waiting);
  ~BlobLock();
  BlobLock(const BlobLock&) = delete;
  BlobLock& operator=(const BlobLock&) = delete;

 private:
  int descriptor_;
};

// Bytes of a regular file, links followed; nothing where there is none.
std::optional<uint64_t> file_bytes(const std::string& path);

// Bytes that can still be written where the folder is.
uint64_t free_bytes(const std::string& folder);

}  // namespace tessera::hub
