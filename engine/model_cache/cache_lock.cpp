#include "engine/model_cache/cache_lock.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <utility>

namespace tessera::model_cache {

namespace {

// Two bytes for each model: one for using it, one for making it.
struct flock range_of(const std::string& model, LockKind kind) {
  struct flock range {};
  const uint64_t place = XXH64(model.data(), model.size(), 0) >> 2;
  range.l_type = kind == LockKind::use ? F_RDLCK : F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(2 * place + (kind == LockKind::making ? 1 : 0));
  range.l_len = 1;
  return range;
}

int open_lock_file(const std::string& folder) {
  const std::string path = folder + "/lock";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  return file >= 0 ? file : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

}  // namespace

CacheLock::CacheLock(const std::string& folder, const std::string& model, LockKind kind, bool waits)
    : descriptor_(open_lock_file(folder)), taken_(true) {
  if (descriptor_ < 0) return;
  // Locks of an open file, not of the process: they also hold between two models of one process.
  struct flock range = range_of(model, kind);
  int result = -1;
  do {
    result = ::fcntl(descriptor_, waits ? F_OFD_SETLKW : F_OFD_SETLK, &range);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return;
  taken_ = errno != EAGAIN && errno != EACCES;
  ::close(descriptor_);
  descriptor_ = -1;
}

CacheLock::~CacheLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

CacheLock::CacheLock(CacheLock&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), taken_(std::exchange(other.taken_, false)) {}

CacheLock& CacheLock::operator=(CacheLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(taken_, other.taken_);
  return *this;
}

CacheLock CacheLock::wait(const std::string& folder, const std::string& model, LockKind kind) {
  return {folder, model, kind, true};
}

CacheLock CacheLock::attempt(const std::string& folder, const std::string& model, LockKind kind) {
  return {folder, model, kind, false};
}

}  // namespace tessera::model_cache
