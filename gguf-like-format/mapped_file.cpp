#include "gguf-like-format/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <utility>

#include "gguf-like-format/stand_ins.h"
#include "gguf-like-format/temporary_file.h"

namespace tessera {

namespace {

// One live mapping as the signal handler sees it: nothing here is ever freed, so a handler that runs while
// another thread unmaps reads stale text at worst. end is 0 while the slot is free.
struct MappingSlot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  size_t line_length = 0;
  std::array<char, PATH_MAX + 64> line{};
};

constexpr size_t kMostMappings = 1024;
std::array<MappingSlot, kMostMappings> mapping_slots;
std::mutex mapping_slots_mutex;
std::atomic_flag sigbus_reported = ATOMIC_FLAG_INIT;

static_assert(std::atomic<uintptr_t>::is_always_lock_free, "the signal handler must not take a lock");

// Only async-signal-safe calls from here on down to the end of the handler.
void handle_sigbus(int signal, siginfo_t* info, void*) {
  remove_temporary_files();  // whatever follows ends the process
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (info->si_code > 0) {  // raised by the kernel for an access, not sent by kill()
    for (const MappingSlot& slot : mapping_slots) {
      const uintptr_t end = slot.end.load(std::memory_order_acquire);
      if (address >= end || address < slot.begin.load(std::memory_order_relaxed)) continue;
      if (sigbus_reported.test_and_set())
        for (;;) ::pause();  // another thread is already writing the line and will end the process
      size_t done = 0;
      while (done < slot.line_length) {
        const ssize_t wrote = ::write(STDERR_FILENO, slot.line.data() + done, slot.line_length - done);
        if (wrote <= 0) break;
        done += static_cast<size_t>(wrote);
      }
      ::_exit(1);
    }
  }
  ::signal(signal, SIG_DFL);
  ::raise(signal);  // stays pending until this handler returns
}

void install_sigbus_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = handle_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, nullptr);
  });
}

MappingSlot* register_mapping(const std::string& path, const void* base, size_t size) {
  const std::lock_guard<std::mutex> lock(mapping_slots_mutex);
  for (MappingSlot& slot : mapping_slots) {
    if (slot.end.load(std::memory_order_relaxed) != 0) continue;
    const std::string line = "tessera: model file changed or could not be read: " + path + "\n";
    slot.line_length = std::min(line.size(), slot.line.size());
    std::copy_n(line.begin(), slot.line_length, slot.line.begin());
    const auto begin = reinterpret_cast<uintptr_t>(base);
    slot.begin.store(begin, std::memory_order_relaxed);
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));  // a mapping covers whole pages
    slot.end.store(begin + (size + page - 1) / page * page, std::memory_order_release);
    return &slot;
  }
  return nullptr;
}

[[noreturn]] void fail(const std::string& path, const char* what, int error) {
  throw FileError(fmt::format("{}: {}: {}", path, what, std::strerror(error)));
}

// An open regular file and its size.
class OpenFile {
 public:
  explicit OpenFile(const std::string& path)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (descriptor_ < 0) throw FileError(fmt::format("{}: {}", path, why_not_opened(path, errno)));
    struct stat info {};
    if (::fstat(descriptor_, &info) != 0) {
      const int error = errno;
      ::close(descriptor_);
      fail(path, "cannot be examined", error);
    }
    if (!S_ISREG(info.st_mode)) {
      ::close(descriptor_);
      throw FileError(
          fmt::format("{}: expected a regular file, found {}", path,
                      S_ISDIR(info.st_mode) ? "a folder" : "something that is neither file nor folder"));
    }
    size_ = static_cast<size_t>(info.st_size);
  }
  ~OpenFile() { ::close(descriptor_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int descriptor() const { return descriptor_; }
  size_t size() const { return size_; }

 private:
  int descriptor_;
  size_t size_ = 0;
};

}  // namespace

struct MappedFile::Region {
  void* base = nullptr;
  size_t size = 0;
  MappingSlot* slot = nullptr;

  Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  std::string_view beginning() const { return {static_cast<const char*>(base), std::min<size_t>(size, 256)}; }
  ~Region() {
    if (slot != nullptr) slot->end.store(0, std::memory_order_release);
    if (base != nullptr) ::munmap(base, size);
  }
};

MappedFile::MappedFile() = default;
MappedFile::MappedFile(std::unique_ptr<Region> region) : region_(std::move(region)) {}
MappedFile::~MappedFile() = default;
MappedFile::MappedFile(MappedFile&&) noexcept = default;
MappedFile& MappedFile::operator=(MappedFile&&) noexcept = default;

std::span<const std::byte> MappedFile::bytes() const {
  if (!region_) return {};
  return {static_cast<const std::byte*>(region_->base), region_->size};
}

MappedFile MappedFile::map(const std::string& path) {
  install_sigbus_handler();
  const OpenFile file(path);
  if (file.size() == 0) return {};
  auto region = std::make_unique<Region>();
  void* base = ::mmap(nullptr, file.size(), PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (base == MAP_FAILED) fail(path, "cannot be mapped", errno);
  region->base = base;
  region->size = file.size();
  region->slot = register_mapping(path, base, file.size());
  if (region->slot == nullptr)
    throw FileError(fmt::format("{}: cannot be mapped: {} files are mapped already", path, kMostMappings));
  refuse_stand_in(path, region->beginning());
  return MappedFile(std::move(region));
}

MappedFile MappedFile::read(const std::string& path) {
  const OpenFile file(path);
  if (file.size() == 0) return {};
  auto region = std::make_unique<Region>();
  void* base = ::mmap(nullptr, file.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED)
    throw FileError(
        fmt::format("{}: no memory for its {} bytes: {}", path, file.size(), std::strerror(errno)));
  region->base = base;
  region->size = file.size();
  ::madvise(base, file.size(), MADV_HUGEPAGE);  // fewer page faults and TLB misses; refusal is harmless
  size_t done = 0;
  while (done < file.size()) {
    // Linux reads at most about 2 GiB a call anyway.
    const size_t piece = std::min(file.size() - done, size_t{1} << 30);
    const ssize_t got = ::read(file.descriptor(), static_cast<std::byte*>(base) + done, piece);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path, "cannot be read", errno);
    if (got == 0)
      throw FileError(fmt::format("{}: expected {} bytes, found {}: the file changed while it was read", path,
                                  file.size(), done));
    done += static_cast<size_t>(got);
  }
  ::mprotect(base, file.size(), PROT_READ);
  refuse_stand_in(path, region->beginning());
  return MappedFile(std::move(region));
}

}  // namespace tessera
