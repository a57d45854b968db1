// Locks between processes that share the cache. They end with the process that holds them, however it ends.
#pragma once

#include <string>

namespace tessera::model_cache {

enum class LockKind {
  use,      // a model is open: shared by any number
  removal,  // excludes use
  making,   // a model is being made: one at a time
};

// Holds one lock on one model of the cache, by the model's name, until it is destroyed. The locks are ranges
// of bytes of the file "lock" in the cache's folder, so that nothing is left behind that could be in the way.
class CacheLock {
 public:
  // Takes the lock if nobody is in the way, and waits for it otherwise. Where the file system has no locks,
  // or the file cannot be had, the lock holds nothing: then two processes may do the same work, each whole.
  static CacheLock wait(const std::string& folder, const std::string& model, LockKind kind);
  // taken() is false when another holds what is in the way.
  static CacheLock attempt(const std::string& folder, const std::string& model, LockKind kind);

  CacheLock() = default;  // holds nothing
  ~CacheLock();
  CacheLock(CacheLock&& other) noexcept;
  CacheLock& operator=(CacheLock&& other) noexcept;

  bool taken() const { return taken_; }

 private:
  CacheLock(const std::string& folder, const std::string& model, LockKind kind, bool waits);
  int descriptor_ = -1;
  bool taken_ = false;
};

}  // namespace tessera::model_cache
