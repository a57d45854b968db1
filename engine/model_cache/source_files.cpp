#include "engine/model_cache/source_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <numeric>
#include <thread>

#include "engine/checkpoint/checkpoint_source.h"
#include "gguf-like-format/file_error.h"

namespace tessera::model_cache {

namespace {

constexpr int64_t kSecond = 1'000'000'000;
// Longer than a file system's clock stands still: two seconds on FAT, and where it counts finer than seconds
// a tick of the kernel's, which is 10 ms at most.
constexpr int64_t kCoarseClock = 2 * kSecond;
constexpr int64_t kFineClock = kSecond / 20;
constexpr size_t kPieceBytes = size_t{1} << 20;

int64_t nanoseconds(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

class Hash {
 public:
  Hash() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }
  void add(const void* bytes, size_t count) { XXH3_128bits_update(state_.get(), bytes, count); }
  void add(const std::string& text) {  // with its length, so that texts cannot run into each other
    add(uint64_t{text.size()});
    add(text.data(), text.size());
  }
  void add(uint64_t number) { add(&number, sizeof number); }
  std::string text() const {
    const XXH128_hash_t value = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", value.high64, value.low64);
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

class ReadFile {
 public:
  explicit ReadFile(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (descriptor_ < 0) fail("cannot be opened");
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~ReadFile() { ::close(descriptor_); }
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;

  // How many bytes came; 0 at the end.
  size_t read(std::vector<std::byte>& buffer) {
    for (;;) {
      const ssize_t got = ::read(descriptor_, buffer.data(), buffer.size());
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EINTR) fail("cannot be read");
    }
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw FileError(fmt::format("{}: {}: {}", path_, what, std::strerror(errno)));
  }
  std::string path_;
  int descriptor_;
};

}  // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    throw FileError(fmt::format("{}: cannot be examined: {}", path, std::strerror(errno)));
  return {path, static_cast<uint64_t>(info.st_size), nanoseconds(info.st_mtim), nanoseconds(info.st_ctim),
          static_cast<uint64_t>(info.st_ino)};
}

uint64_t SourceFiles::bytes() const {
  return std::accumulate(files.begin(), files.end(), uint64_t{0},
                         [](uint64_t sum, const FileStamp& file) { return sum + file.bytes; });
}

bool wait_until_settled(const SourceFiles& source) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  int64_t wait = 0;
  for (const FileStamp& file : source.files) {
    const int64_t clock = file.changed % kSecond == 0 ? kCoarseClock : kFineClock;
    wait = std::max(wait, std::max(file.modified, file.changed) + clock - nanoseconds(now));
  }
  if (wait > kFineClock) return false;
  std::this_thread::sleep_for(std::chrono::nanoseconds(wait));
  return true;
}

SourceFiles list_source_files(const std::string& checkpoint) {
  SourceFiles source;
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(checkpoint, error).lexically_normal();
  if (error) throw FileError(fmt::format("{}: has no absolute path: {}", checkpoint, error.message()));
  if (!path.has_filename()) path = path.parent_path();  // "folder/" is "folder"
  source.path = path.string();
  for (const std::string& file : checkpoint_files(source.path)) source.files.push_back(stamp_of(file));
  return source;
}

std::string content_hash(const SourceFiles& source, const std::function<void(uint64_t, uint64_t)>& progress) {
  Hash hash;
  std::error_code none;
  const bool folder = std::filesystem::is_directory(source.path, none);
  std::vector<std::byte> piece(kPieceBytes);
  const uint64_t total = source.bytes();
  uint64_t done = 0;
  hash.add(uint64_t{source.files.size()});
  for (const FileStamp& stamp : source.files) {
    if (folder) hash.add(std::filesystem::path(stamp.path).filename().string());
    hash.add(stamp.bytes);
    ReadFile file(stamp.path);
    uint64_t bytes = 0;
    while (const size_t got = file.read(piece)) {
      hash.add(piece.data(), got);
      bytes += got;
      if (progress) progress(std::min(done + bytes, total), total);
    }
    if (bytes != stamp.bytes)
      throw FileError(fmt::format("{}: expected {} bytes, found {}: the file changed while it was read",
                                  stamp.path, stamp.bytes, bytes));
    done += bytes;
  }
  return hash.text();
}

}  // namespace tessera::model_cache
