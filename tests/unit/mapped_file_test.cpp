// Mapping and reading whole files, and what happens when a mapped file shrinks.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <iostream>
#include <thread>

#include "gguf-like-format/mapped_file.h"
#include "gguf-like-format/tess/tess_file.h"
#include "tests/unit/crafted_files.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TESSERA_MLOCK_IS_REPLACED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TESSERA_MLOCK_IS_REPLACED 1
#endif
#endif

using namespace tessera;
using namespace tessera::crafted;

namespace {

struct Ended {
  int status = 0;
  std::string errors;
};

// Runs action in a child process and collects its exit status and what it writes to stderr.
template <typename Action>
Ended in_child(Action&& action) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    action();
    ::_exit(77);
  }
  ::close(ends[1]);
  Ended ended;
  std::array<char, 4096> buffer;
  for (ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;)
    ended.errors.append(buffer.data(), static_cast<size_t>(got));
  ::close(ends[0]);
  REQUIRE(::waitpid(child, &ended.status, 0) == child);
  return ended;
}

unsigned touch(std::span<const std::byte> bytes, size_t at) {
  const volatile std::byte* const data = bytes.data();
  return std::to_integer<unsigned>(data[at]);
}

}  // namespace

TEST_CASE("mapped and read bytes are the file's, wherever the object moves") {
  const Folder folder;
  std::mt19937_64 random(5);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4095}, size_t{4096}, size_t{70001}}) {
    std::string content(size, '\0');
    for (char& c : content) c = static_cast<char>(random());
    write_file(folder / "data", content);
    for (const bool map : {true, false}) {
      MappedFile first = map ? MappedFile::map(folder / "data") : MappedFile::read(folder / "data");
      const MappedFile second = std::move(first);
      REQUIRE(second.bytes().size() == size);
      CHECK((size == 0 || std::memcmp(second.bytes().data(), content.data(), size) == 0));
      CHECK(reinterpret_cast<uintptr_t>(second.bytes().data()) % 4096 == 0);
    }
  }
}

TEST_CASE("a mapped file that shrinks ends the process with a line and exit code 1") {
  const Folder folder;
  const std::string path = folder / "weights.tess";
  const std::string expected = "tessera: model file changed or could not be read: " + path + "\n";
  write_file(path, std::string(1 << 20, 'w'));
  const Ended direct = in_child([&] {
    const MappedFile file = MappedFile::map(path);
    if (::truncate(path.c_str(), 4096) != 0) ::_exit(78);
    touch(file.bytes(), 0);
    touch(file.bytes(), 900000);
  });
  REQUIRE(WIFEXITED(direct.status));
  CHECK(WEXITSTATUS(direct.status) == 1);
  CHECK(direct.errors == expected);

  write_file(path, std::string((1 << 20) - 100, 'w'));
  const Ended threaded = in_child([&] {
    const MappedFile file = MappedFile::map(path);
    if (::truncate(path.c_str(), 0) != 0) ::_exit(78);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < 4; ++i)
      threads.emplace_back([&file, i] { touch(file.bytes(), file.bytes().size() - 1 - 200000 * i); });
    for (std::thread& thread : threads) thread.join();
  });
  REQUIRE(WIFEXITED(threaded.status));
  CHECK(WEXITSTATUS(threaded.status) == 1);
  CHECK(threaded.errors == expected);  // once, however many threads met it
}

TEST_CASE("a model file that shrinks while open does the same, and one in memory does not mind") {
  const Folder folder;
  const std::string path = folder / "small.tess";
  small_file(path, 3);
  const Ended mapped = in_child([&] {
    const auto file = TessFile::open(path, true);
    if (::truncate(path.c_str(), 8192) != 0) ::_exit(78);
    file->verify();
  });
  REQUIRE(WIFEXITED(mapped.status));
  CHECK(WEXITSTATUS(mapped.status) == 1);
  CHECK(mapped.errors == "tessera: model file changed or could not be read: " + path + "\n");
  small_file(path, 3);
  const Ended read = in_child([&] {
    const auto file = TessFile::open(path, false);
    if (::truncate(path.c_str(), 8192) != 0) ::_exit(78);
    ::_exit(file->verify().empty() ? 0 : 79);
  });
  REQUIRE(WIFEXITED(read.status));
  CHECK(WEXITSTATUS(read.status) == 0);
}

TEST_CASE("SIGBUS from elsewhere keeps its default action") {
  const Folder folder;
  write_file(folder / "model", std::string(8192, 'm'));
  write_file(folder / "other", std::string(8192, 'o'));
  const auto by_access = [&] {
    const MappedFile model = MappedFile::map(folder / "model");
    const int other = ::open((folder / "other").c_str(), O_RDONLY);
    void* const base = ::mmap(nullptr, 8192, PROT_READ, MAP_SHARED, other, 0);
    if (base == MAP_FAILED || ::truncate((folder / "other").c_str(), 0) != 0) ::_exit(78);
    touch({static_cast<const std::byte*>(base), 8192}, 5000);
  };
  const auto by_unmapped = [&] {
    { const MappedFile gone = MappedFile::map(folder / "model"); }
    ::raise(SIGBUS);
  };
  const auto by_kill = [&] {
    const MappedFile model = MappedFile::map(folder / "model");
    ::raise(SIGBUS);
  };
  for (const Ended& ended : {in_child(by_access), in_child(by_unmapped), in_child(by_kill)}) {
    REQUIRE(WIFSIGNALED(ended.status));
    CHECK(WTERMSIG(ended.status) == SIGBUS);
    // An emulator that the tests of another machine run in has a line of its own for that.
    CHECK((ended.errors.empty() || ended.errors.starts_with("qemu: uncaught target signal")));
  }
}

TEST_CASE("more mappings than the handler can know are refused, and slots come back") {
  const Folder folder;
  write_file(folder / "model", "model");
  std::vector<MappedFile> files;
  std::string line;
  for (int i = 0; i < 2000 && line.empty(); ++i)
    line = refusal([&] { files.push_back(MappedFile::map(folder / "model")); });
  CHECK(contains(line, "1024 files are mapped already"));
  files.pop_back();
  CHECK(refusal([&] { files.push_back(MappedFile::map(folder / "model")); }).empty());
}

TEST_CASE("locking pages works within the limit and names it beyond") {
#ifdef TESSERA_MLOCK_IS_REPLACED
  std::cout << "skipped: sanitizers replace mlock by nothing\n";
  MESSAGE("skipped: sanitizers replace mlock by nothing");
  return;
#endif
  const Folder folder;
  const std::string path = folder / "small.tess";
  small_file(path, 9);
  const Ended ended = in_child([&] {
    const auto file = TessFile::open(path, true);
    // Without privileges from here on, so that the limit holds.
    const struct rlimit none {};
    if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0) ::_exit(78);
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) ::_exit(79);
    const std::string line = refusal([&] { lock_pages(*file); });
    if (::write(STDERR_FILENO, line.data(), line.size()) < 0) ::_exit(80);
    ::_exit(0);
  });
  REQUIRE(WIFEXITED(ended.status));
  REQUIRE(WEXITSTATUS(ended.status) == 0);
  CHECK(contains(ended.errors, "--mlock"));
  CHECK(contains(ended.errors, "limit: 0 bytes"));
  const auto file = TessFile::open(path, true);
  struct rlimit limit {};
  REQUIRE(::getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
  if (limit.rlim_cur > (1 << 20)) CHECK(refusal([&] { lock_pages(*file); }).empty());
}
