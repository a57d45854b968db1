#include "gguf-like-format/temporary_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <mutex>

namespace tessera {

namespace {

// A temporary file as the signal handler sees it. owner is the process that must remove it, 0 for a free
// slot, so that a forked child never removes its parent's file.
struct RemovalSlot {
  std::atomic<pid_t> owner{0};
  std::array<char, PATH_MAX> path{};
};

constexpr std::array<int, 4> kSignals{SIGINT, SIGTERM, SIGHUP, SIGQUIT};
std::array<RemovalSlot, 16> removal_slots;
std::array<struct sigaction, kSignals.size()> previous_actions;
std::mutex removal_mutex;
size_t removals_in_use = 0;

static_assert(std::atomic<pid_t>::is_always_lock_free, "the signal handler must not take a lock");

// Only async-signal-safe calls.
void remove_and_raise(int signal) {
  const int saved_errno = errno;
  remove_temporary_files();
  for (size_t i = 0; i < kSignals.size(); ++i)
    if (kSignals[i] == signal) ::sigaction(signal, &previous_actions[i], nullptr);
  ::raise(signal);  // stays pending until this handler returns
  errno = saved_errno;
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == remove_and_raise;
}

void install_handlers() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], nullptr, &previous_actions[i]);
    // What is ignored (SIGHUP under nohup) must stay so.
    if ((previous_actions[i].sa_flags & SA_SIGINFO) == 0 && previous_actions[i].sa_handler == SIG_IGN)
      continue;
    struct sigaction action {};
    action.sa_handler = remove_and_raise;
    ::sigemptyset(&action.sa_mask);
    for (const int other : kSignals) ::sigaddset(&action.sa_mask, other);
    action.sa_flags = SA_RESTART;
    ::sigaction(kSignals[i], &action, nullptr);
  }
}

void restore_handlers() {
  for (size_t i = 0; i < kSignals.size(); ++i) {
    struct sigaction current {};
    ::sigaction(kSignals[i], nullptr, &current);
    if (is_ours(current)) ::sigaction(kSignals[i], &previous_actions[i], nullptr);
  }
}

size_t register_removal(const std::string& path) {
  const std::lock_guard<std::mutex> lock(removal_mutex);
  if (path.size() >= PATH_MAX) throw FileWriteError(fmt::format("{}: path is too long", path));
  for (size_t i = 0; i < removal_slots.size(); ++i) {
    RemovalSlot& slot = removal_slots[i];
    if (slot.owner.load(std::memory_order_relaxed) != 0) continue;
    std::copy_n(path.c_str(), path.size() + 1, slot.path.begin());
    slot.owner.store(::getpid(), std::memory_order_release);
    if (removals_in_use++ == 0) install_handlers();
    return i;
  }
  throw FileWriteError(fmt::format("{}: {} files are being written already", path, removal_slots.size()));
}

void forget_removal(size_t slot) {
  const std::lock_guard<std::mutex> lock(removal_mutex);
  removal_slots[slot].owner.store(0, std::memory_order_release);
  if (--removals_in_use == 0) restore_handlers();
}

[[noreturn]] void fail(const std::string& path, std::string_view what, int error) {
  throw FileWriteError(fmt::format("{}: {}: {}", path, what, std::strerror(error)));
}

std::string resolve_target(const std::string& target) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::symlink_status(target, error);
  if (status.type() == std::filesystem::file_type::none && !target.empty())  // not even known to be absent
    throw FileWriteError(fmt::format("{}: cannot be written: {}", target, error.message()));
  if (std::filesystem::is_symlink(status)) {
    const std::filesystem::path real = std::filesystem::canonical(target, error);
    if (error) throw FileWriteError(fmt::format("{}: symbolic link: {}", target, error.message()));
    return resolve_target(real.string());
  }
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw FileWriteError(fmt::format("{}: expected a regular file to replace, found {}", target,
                                     std::filesystem::is_directory(status) ? "a folder" : "something else"));
  if (target.empty() || target.back() == '/')
    throw FileWriteError(fmt::format("{}: expected a file name", target.empty() ? "target" : target));
  return target;
}

// The target's name in that of a temporary file, ".NAME.PID-N.partial"; empty where it is no such name.
std::string_view temporary_target(std::string_view file) {
  constexpr std::string_view kEnd = ".partial";
  if (!file.starts_with('.') || !file.ends_with(kEnd)) return {};
  file.remove_suffix(kEnd.size());
  const size_t dot = file.rfind('.');
  if (dot == 0) return {};
  const std::string_view numbers = file.substr(dot + 1);
  if (std::count(numbers.begin(), numbers.end(), '-') != 1 ||
      numbers.find_first_not_of("0123456789-") != std::string_view::npos)
    return {};
  return file.substr(1, dot - 1);
}

// Removes temporary files that nobody holds any more, for one target or (empty) for all. Returns their bytes.
uint64_t remove_left_behind(const std::string& folder, std::string_view name) {
  uint64_t bytes = 0;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string file_name = entry.path().filename().string();
    const std::string_view target = temporary_target(file_name);
    if (target.empty() || (!name.empty() && target != name)) continue;
    const int file = ::open(entry.path().c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) continue;
    struct stat info {};
    if (::flock(file, LOCK_EX | LOCK_NB) == 0 && ::fstat(file, &info) == 0 &&
        ::unlink(entry.path().c_str()) == 0)
      bytes += static_cast<uint64_t>(info.st_size);
    ::close(file);
  }
  return bytes;
}

// Holds a new file until it is closed, so that others see that it is in use. False when another process has
// just removed it as left behind. A file system without locks holds nothing, and nothing is removed there.
bool hold(int descriptor) {
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) return errno != EWOULDBLOCK;
  struct stat info {};
  return ::fstat(descriptor, &info) != 0 || info.st_nlink > 0;
}

}  // namespace

uint64_t remove_abandoned_files(const std::string& folder) { return remove_left_behind(folder, {}); }

void remove_temporary_files() noexcept {
  const pid_t self = ::getpid();
  for (const RemovalSlot& slot : removal_slots)
    if (slot.owner.load(std::memory_order_acquire) == self) ::unlink(slot.path.data());
}

TemporaryFile::TemporaryFile(const std::string& target) : target_(resolve_target(target)) {
  static std::atomic<unsigned> counter{0};
  const size_t slash = target_.rfind('/');
  folder_ = slash == std::string::npos ? "." : slash == 0 ? "/" : target_.substr(0, slash);
  const std::string prefix = slash == std::string::npos ? "" : target_.substr(0, slash + 1);
  const std::string name = target_.substr(prefix.size());
  const std::string kept_name = name.substr(0, 200);
  remove_left_behind(folder_, kept_name);
  struct stat replaced {};
  const bool replaces = ::stat(target_.c_str(), &replaced) == 0;
  const mode_t permissions = replaces ? S_IRUSR | S_IWUSR : 0666;
  constexpr int kAttempts = 16;
  for (int attempt = 1;; ++attempt) {
    // Registered before it exists: removing a file that is not there does no harm.
    path_ = fmt::format("{}.{}.{}-{}.partial", prefix, kept_name, ::getpid(), counter.fetch_add(1));
    slot_ = register_removal(path_);
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, permissions);
    int error = descriptor_ < 0 ? errno : 0;
    if (error == 0 && hold(descriptor_)) break;
    if (error == 0) {
      ::close(descriptor_);
      ::unlink(path_.c_str());
      descriptor_ = -1;
      if (attempt < kAttempts) error = EEXIST;
    }
    forget_removal(slot_);
    // A name may be taken by what an earlier process of this number left on a file system without locks.
    if (error == EEXIST && attempt < kAttempts) continue;
    fail(target_, "cannot be written: no temporary file beside it", error == 0 ? EBUSY : error);
  }
  if (!replaces) return;
  // What takes a file's place is for the same eyes; where that is refused it stays the user's own.
  constexpr mode_t kPermissions = S_IRWXU | S_IRWXG | S_IRWXO;
  [[maybe_unused]] const int changed = ::fchmod(descriptor_, replaced.st_mode & kPermissions);
}

TemporaryFile::~TemporaryFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(path_.c_str());
  forget_removal(slot_);
}

void TemporaryFile::reserve(uint64_t bytes) {
  if (bytes > static_cast<uint64_t>(INT64_MAX)) fail(target_, "cannot be written", EFBIG);
  int error = EINTR;
  while (error == EINTR) error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
  if (error == 0) return;
  if (error != ENOSPC) fail(target_, fmt::format("no space for {} bytes", bytes), error);
  // What was reserved so far must not count as used in the message.
  struct statvfs info {};
  const bool known = ::ftruncate(descriptor_, 0) == 0 && ::fstatvfs(descriptor_, &info) == 0;
  throw FileWriteError(
      fmt::format("{}: disk full: expected room for {} bytes, found {}", target_, bytes,
                  known ? fmt::format("{}", static_cast<uint64_t>(info.f_bavail) * info.f_frsize) : "less"));
}

void TemporaryFile::write(std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), size_t{1} << 30),
                                   static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0)
      fail(target_, fmt::format("writing at byte {} failed", offset), wrote < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(wrote));
    offset += static_cast<uint64_t>(wrote);
  }
}

void TemporaryFile::commit() {
  if (::fsync(descriptor_) != 0) fail(target_, "flushing to disk failed", errno);
  if (::rename(path_.c_str(), target_.c_str()) != 0) fail(target_, "cannot be replaced", errno);
  ::close(descriptor_);
  descriptor_ = -1;
  forget_removal(slot_);
  const int folder = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  // The file is whole and in place by now. A folder that cannot be opened for reading or flushed (some file
  // systems know no such thing) only weakens what a power cut leaves.
  if (folder < 0) return;
  const int result = ::fsync(folder);
  const int error = errno;
  ::close(folder);
  if (result != 0 && error == EIO) fail(folder_, "flushing the folder to disk failed", error);
}

}  // namespace tessera
