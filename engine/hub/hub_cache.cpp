#include "engine/hub/hub_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "engine/hub/hub_error.h"
#include "engine/hub/listing.h"
#include "gguf-like-format/strict_json.h"
#include "gguf-like-format/temporary_file.h"

namespace tessera::hub {

namespace {

namespace fs = std::filesystem;

constexpr size_t kMostRefBytes = 256;
constexpr size_t kMostFiles = 100'000;

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw HubError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
}

std::string folder_name(const std::string& repository) {
  const size_t slash = repository.find('/');
  return fmt::format("models--{}--{}", repository.substr(0, slash), repository.substr(slash + 1));
}

}  // namespace

RepositoryCache::RepositoryCache(const std::string& cache, const std::string& repository)
    : folder_(cache + "/" + folder_name(repository)), locks_(cache + "/.locks/" + folder_name(repository)) {}

std::string RepositoryCache::blob(std::string_view hash) const {
  return fmt::format("{}/blobs/{}", folder_, hash);
}

std::string RepositoryCache::snapshot(std::string_view commit) const {
  return fmt::format("{}/snapshots/{}", folder_, commit);
}

std::string RepositoryCache::lock_path(std::string_view hash) const {
  return fmt::format("{}/{}.lock", locks_, hash);
}

std::optional<std::string> RepositoryCache::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  const std::string path = fmt::format("{}/refs/{}", folder_, revision);
  if (!file_bytes(path)) return std::nullopt;
  std::string commit = read_text_file(path, kMostRefBytes);
  commit.erase(commit.find_last_not_of(" \r\n") + 1);
  return is_commit(commit) ? std::optional(commit) : std::nullopt;
}

void RepositoryCache::set_commit(const std::string& revision, const std::string& commit) const {
  if (is_commit(revision) || commit_of(revision) == commit) return;
  const fs::path path = fmt::format("{}/refs/{}", folder_, revision);
  make_folders(path.parent_path());
  TemporaryFile file(path.string());
  file.write(std::as_bytes(std::span(commit)), 0);
  file.commit();
}

std::vector<std::string> RepositoryCache::files(std::string_view commit) const {
  const fs::path top = snapshot(commit);
  std::vector<std::string> found;
  std::error_code error;
  for (fs::recursive_directory_iterator at(top, error), end; !error && at != end; at.increment(error)) {
    std::error_code broken;  // a link that leads nowhere
    if (at->is_regular_file(broken) && found.size() < kMostFiles)
      found.push_back(at->path().lexically_relative(top).generic_string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void RepositoryCache::link(std::string_view commit, const std::string& path, std::string_view hash) const {
  const fs::path place = fs::path(snapshot(commit)) / path;
  make_folders(place.parent_path());
  const fs::path target = fs::path(blob(hash)).lexically_relative(place.parent_path());
  std::error_code error;
  if (fs::read_symlink(place, error) == target) return;
  // Under another name first, so that whoever looks sees the old link or the new one.
  const fs::path fresh = place.string() + fmt::format(".{}.link", ::getpid());
  fs::remove(fresh, error);
  fs::create_symlink(target, fresh, error);
  if (!error) fs::rename(fresh, place, error);
  if (!error) return;
  const std::string reason = error.message();
  fs::remove(fresh, error);
  throw HubError(fmt::format("{}: cannot be linked: {}", place.string(), reason));
}

void RepositoryCache::prepare() const {
  make_folders(folder_ + "/blobs");
  make_folders(locks_);
}

BlobLock::BlobLock(const std::string& path, const std::function<void()>& waiting)
    : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) throw HubError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno == EWOULDBLOCK) waiting();
  while (::flock(descriptor_, LOCK_EX) != 0) {
    if (errno == EINTR) continue;
    const int error = errno;
    ::close(descriptor_);
    throw HubError(fmt::format("{}: cannot be locked: {}", path, std::strerror(error)));
  }
}

BlobLock::~BlobLock() { ::close(descriptor_); }

std::optional<uint64_t> file_bytes(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  return static_cast<uint64_t>(info.st_size);
}

uint64_t free_bytes(const std::string& folder) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error) throw HubError(fmt::format("{}: cannot be examined: {}", folder, error.message()));
  return space.available;
}

}  // namespace tessera::hub
