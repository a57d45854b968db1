// The .tess writer: whole files or none, whatever fails and whichever signal ends the process.
#include "gguf-like-format/tess/tess_writer.h"

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <functional>
#include <iostream>

#include "gguf-like-format/tess/tess_file.h"
#include "tests/unit/crafted_files.h"

using namespace tessera;
using namespace tessera::crafted;

namespace {

void write_all(TessWriter& writer, const std::vector<PlannedTensor>& tensors, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (const PlannedTensor& tensor : tensors) {
    const std::string content = tensor_content(tensor, random);
    writer.write(std::as_bytes(std::span(content)));
  }
}

// Runs action in a child; exit code 0 means that it returned true.
int child_status(const std::function<bool()>& action) {
  std::cout.flush();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    bool good = false;
    try {
      good = action();
    } catch (const std::exception& error) {
      std::cerr << "child: " << error.what() << "\n";
    }
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

// Starts a child that holds a half-written file, runs setup first, and returns its id once the file exists.
pid_t start_half_written(const std::string& path, const std::function<void()>& setup) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::signal(signal, SIG_DFL);  // not doctest's
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    setup();
    TessWriter writer(path, small_header(), small_tensors());
    std::mt19937_64 random(1);
    const std::string first = tensor_content(small_tensors()[0], random);
    writer.write(std::as_bytes(std::span(first)));
    if (::write(ends[1], "r", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ends[1]);
  char ready = 0;
  REQUIRE(::read(ends[0], &ready, 1) == 1);
  ::close(ends[0]);
  return child;
}

}  // namespace

TEST_CASE("the target appears whole at finish and not before") {
  const Folder folder;
  const std::string path = folder / "model.tess";
  {
    TessWriter writer(path, small_header(), small_tensors());
    CHECK(folder.entries() == 1);  // the temporary file
    CHECK_FALSE(std::filesystem::exists(path));
    write_all(writer, small_tensors(), 21);
    CHECK_FALSE(std::filesystem::exists(path));
    writer.finish();
    CHECK(std::filesystem::file_size(path) == writer.file_bytes());
  }
  CHECK(folder.entries() == 1);
  CHECK(TessFile::open(path, true)->verify().empty());
}

TEST_CASE("a writer that does not finish leaves nothing, and an existing target as it was") {
  const Folder folder;
  const std::string path = folder / "model.tess";
  {
    TessWriter writer(path, small_header(), small_tensors());
    write_all(writer, small_tensors(), 21);
  }
  CHECK(folder.entries() == 0);
  write_file(path, "precious");
  {
    TessWriter writer(path, small_header(), small_tensors());
    write_all(writer, small_tensors(), 21);
    CHECK(read_file(path) == "precious");
  }
  CHECK(folder.entries() == 1);
  CHECK(read_file(path) == "precious");
  {
    TessWriter writer(path, small_header(), small_tensors());
    CHECK(contains(refusal([&] { writer.finish(); }), "tensor token_embedding: planned but not written"));
  }
  CHECK(read_file(path) == "precious");
  small_file(path, 4);
  CHECK(TessFile::open(path, false)->verify().empty());
}

TEST_CASE("tensors of the wrong size or number are refused by name") {
  const Folder folder;
  TessWriter writer(folder / "model.tess", small_header(), small_tensors());
  const std::vector<std::byte> wrong(77);
  CHECK(contains(refusal([&] { writer.write(wrong); }),
                 "tensor token_embedding: expected 3264 bytes, found 77"));
  write_all(writer, small_tensors(), 2);
  CHECK(contains(refusal([&] { writer.write(wrong); }), "all 17 planned tensors"));
  writer.finish();
  CHECK(contains(refusal([&] { writer.finish(); }), "finished already"));
  CHECK(contains(refusal([&] { writer.write(wrong); }), "all 17 planned tensors"));
}

TEST_CASE("plans that the reader would refuse are refused before anything is written") {
  const Folder folder;
  const auto fault = [&](const std::function<void(ModelHeader&, std::vector<PlannedTensor>&)>& spoil) {
    ModelHeader header = small_header();
    std::vector<PlannedTensor> tensors = small_tensors();
    spoil(header, tensors);
    const std::string line = refusal([&] { TessWriter(folder / "model.tess", header, tensors); });
    CAPTURE(line);
    CHECK(well_formed(line, "model.tess"));
    CHECK(folder.entries() == 0);
    return line;
  };
  CHECK(contains(fault([](auto&, auto& t) { t[1].name = t[2].name; }), "appears twice"));
  CHECK(contains(fault([](auto&, auto& t) { t[1].name = "bad name"; }), "tensors[1].name"));
  CHECK(contains(fault([](auto&, auto& t) { t[1].scheme = Scheme::f16; }), "tensor output_norm.shape"));
  CHECK(contains(fault([](auto&, auto& t) { t[1].shape = {0}; }), "tensor output_norm.shape"));
  CHECK(contains(fault([](auto&, auto& t) { t[1].shape = {25}; }), "tensor output_norm.shape"));
  CHECK(contains(fault([](auto&, auto& t) {
                   for (size_t i = 0; i < 3; ++i)
                     t[i] = {fmt::format("x{}", i), Scheme::u8, {uint64_t{3} << 61}};
                 }),
                 "2^63"));
  CHECK(contains(fault([](auto& h, auto&) { h.hyperparameters.kv_heads = 0; }), "model.kv_heads"));
  CHECK(
      contains(fault([](auto& h, auto&) { h.hyperparameters.norm_epsilon = std::nan(""); }), "norm_epsilon"));
  CHECK(contains(fault([](auto& h, auto&) { h.quantization.kv_bits = 7; }), "quantization.kv_bits"));
  CHECK(contains(fault([](auto& h, auto&) { h.chat.stop_tokens = {40}; }), "chat.stop_tokens[0]"));
  CHECK(contains(fault([](auto& h, auto&) { h.chat.chat_template = "\xff\xfe"; }), "UTF-8"));
  CHECK(contains(fault([](auto& h, auto&) { h.chat.chat_template.assign((1 << 20) + 1, 'x'); }),
                 "chat.template"));
  CHECK(contains(fault([](auto& h, auto&) { h.tokenizer.settings_json = "{\"a\":1,\"a\":2}"; }),
                 "appears twice"));
  CHECK(contains(fault([](auto& h, auto&) { h.tokenizer.settings_json = "[]"; }), "tokenizer.settings"));
}

TEST_CASE("tokenizer settings have room for tens of thousands of added tokens") {
  const Folder folder;
  const std::string path = folder / "model.tess";
  ModelHeader header = small_header();
  header.tokenizer.settings_json = fmt::format("{{\"a\":\"{}\"}}", std::string(3'000'000, 'x'));
  {
    TessWriter writer(path, header, small_tensors());
    write_all(writer, small_tensors(), 3);
    writer.finish();
  }
  CHECK(TessFile::open(path, false)->header().tokenizer.settings_json == header.tokenizer.settings_json);
}

TEST_CASE("a command line in another encoding is kept as far as UTF-8 allows") {
  const Folder folder;
  ModelHeader header = small_header();
  header.name = "mod\xe8le";
  header.quantization.command = "tessera quantize /tmp/mod\xe8le";
  TessWriter writer(folder / "model.tess", header, {});
  writer.finish();
  const auto file = TessFile::open(folder / "model.tess", true);
  CHECK(file->header().name == "mod\xef\xbf\xbdle");
  CHECK(file->header().quantization.command == "tessera quantize /tmp/mod\xef\xbf\xbdle");
}

TEST_CASE("targets that cannot be written say why") {
  const Folder folder;
  const auto fault = [&](const std::string& path) {
    return refusal([&] { TessWriter(path, small_header(), small_tensors()); });
  };
  CHECK(contains(fault(folder / "absent/model.tess"), "absent/model.tess: cannot be written"));
  CHECK(contains(fault(folder.path()), "found a folder"));
  CHECK(contains(fault(folder / "name/"), "file name"));
  CHECK(contains(fault(""), "file name"));
  CHECK(contains(fault("/dev/null"), "regular file"));
  CHECK(contains(fault(folder / std::string(5000, 'x')), "cannot be written"));
  CHECK(folder.entries() == 0);
}

TEST_CASE("a symbolic link keeps pointing at the file that is replaced") {
  const Folder folder;
  write_file(folder / "real.tess", "old");
  std::filesystem::create_symlink(folder / "real.tess", folder / "link.tess");
  small_file(folder / "link.tess", 8);
  CHECK(std::filesystem::is_symlink(folder / "link.tess"));
  CHECK(TessFile::open(folder / "real.tess", true)->verify().empty());
  std::filesystem::create_symlink(folder / "nowhere", folder / "broken.tess");
  CHECK(contains(refusal([&] { small_file(folder / "broken.tess", 8); }), "symbolic link"));
}

TEST_CASE("many tensors of random shapes: a header of several pages, every byte where it belongs") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  const Folder folder;
  constexpr Scheme schemes[] = {Scheme::f32,  Scheme::f16,       Scheme::bf16, Scheme::w8a8,
                                Scheme::w4a8, Scheme::w4a8_g128, Scheme::u8,   Scheme::u32};
  for (const size_t count : {size_t{0}, size_t{1}, size_t{22}, size_t{23}, size_t{24}, size_t{400}}) {
    std::vector<PlannedTensor> tensors;
    for (size_t i = 0; i < count; ++i) {
      const Scheme scheme = schemes[random() % std::size(schemes)];
      std::vector<uint64_t> shape{1 + random() % 40};
      if (scheme != Scheme::u8 && scheme != Scheme::u32) shape.push_back(1 + random() % 200);
      tensors.push_back({fmt::format("extra.{}", i), scheme, shape});
    }
    const std::string path = folder / "many.tess";
    TessWriter writer(path, small_header(), tensors);
    const uint64_t content_seed = random();
    write_all(writer, tensors, content_seed);
    writer.finish();
    const auto file = TessFile::open(path, true);
    REQUIRE(file->tensors().size() == count);
    CHECK(file->verify().empty());
    std::mt19937_64 content(content_seed);
    for (size_t i = 0; i < count; ++i) {
      const std::string expected = tensor_content(tensors[i], content);
      const StoredTensor& stored = file->require(tensors[i].name);
      REQUIRE(stored.bytes.size() == expected.size());
      REQUIRE(std::memcmp(stored.bytes.data(), expected.data(), expected.size()) == 0);
    }
  }
}

TEST_CASE("no room: found before the work, named, and nothing is left") {
  const Folder folder;
  const std::string path = folder / "model.tess";
  write_file(path, "precious");
  const auto limited = [&](rlim_t bytes) {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGXFSZ, &ignore, nullptr);
    const struct rlimit limit { bytes, bytes };
    return ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
  };
  CHECK(child_status([&] {
          if (!limited(20000)) return false;
          const std::string line = refusal([&] { TessWriter(path, small_header(), small_tensors()); });
          return contains(line, "model.tess: no space for 73728 bytes");
        }) == 0);
  CHECK(folder.entries() == 1);
  CHECK(read_file(path) == "precious");
  // The limit strikes in the middle of writing.
  CHECK(child_status([&] {
          TessWriter writer(path, small_header(), small_tensors());
          if (!limited(20000)) return false;
          return contains(refusal([&] { write_all(writer, small_tensors(), 1); }), "writing at byte");
        }) == 0);
  // Only the exit of the child's writer has removed its file.
  CHECK(folder.entries() == 1);
  CHECK(read_file(path) == "precious");
}

TEST_CASE("a full disk says how much room there is") {
  const Folder folder;
  constexpr int cannot_mount = 42;
  const int status = child_status([&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=32k") != 0)
      ::_exit(cannot_mount);
    const std::string path = folder / "model.tess";
    write_file(path, "precious");
    const std::string line = refusal([&] { TessWriter(path, small_header(), small_tensors()); });
    return contains(line, "disk full: expected room for 73728 bytes, found 28672") && folder.entries() == 1 &&
           read_file(path) == "precious";
  });
  if (WIFEXITED(status) && WEXITSTATUS(status) == cannot_mount) {
    std::cout << "skipped: a small file system cannot be mounted here\n";
    MESSAGE("skipped: a small file system cannot be mounted here");
    return;
  }
  CHECK(status == 0);
}

TEST_CASE("a signal removes the temporary file and then ends the process as it would have") {
  const Folder folder;
  const std::string path = folder / "model.tess";
  write_file(path, "precious");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    CAPTURE(signal);
    const pid_t child = start_half_written(path, [] {});
    CHECK(folder.entries() == 2);
    REQUIRE(::kill(child, signal) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == signal);
    CHECK(folder.entries() == 1);
    CHECK(read_file(path) == "precious");
  }
}

TEST_CASE("a handler that was there before still runs, and an ignored signal stays ignored") {
  const Folder folder;
  const std::string path = folder / "model.tess";
  const pid_t handled = start_half_written(path, [] {
    struct sigaction action {};
    action.sa_handler = [](int) { ::_exit(55); };
    ::sigaction(SIGINT, &action, nullptr);
  });
  REQUIRE(::kill(handled, SIGINT) == 0);
  int status = 0;
  REQUIRE(::waitpid(handled, &status, 0) == handled);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 55);
  CHECK(folder.entries() == 0);

  const pid_t deaf = start_half_written(path, [] { ::signal(SIGHUP, SIG_IGN); });
  REQUIRE(::kill(deaf, SIGHUP) == 0);
  ::usleep(50000);
  CHECK(::waitpid(deaf, &status, WNOHANG) == 0);
  CHECK(folder.entries() == 1);
  REQUIRE(::kill(deaf, SIGTERM) == 0);
  REQUIRE(::waitpid(deaf, &status, 0) == deaf);
  CHECK(WIFSIGNALED(status));
  CHECK(folder.entries() == 0);
}

TEST_CASE("handlers are gone once nothing is being written, and a child never removes its parent's file") {
  const Folder folder;
  struct sigaction of_doctest {};
  struct sigaction before {};
  before.sa_handler = SIG_DFL;
  REQUIRE(::sigaction(SIGTERM, &before, &of_doctest) == 0);
  {
    TessWriter one(folder / "one.tess", small_header(), small_tensors());
    TessWriter two(folder / "two.tess", small_header(), small_tensors());
    struct sigaction during {};
    REQUIRE(::sigaction(SIGTERM, nullptr, &during) == 0);
    CHECK((during.sa_handler != before.sa_handler));
    const int status = child_status([] { return ::raise(SIGTERM) != 0; });
    REQUIRE(WIFSIGNALED(status));
    CHECK(folder.entries() == 2);
    write_all(one, small_tensors(), 1);
    one.finish();
  }
  CHECK(folder.entries() == 1);
  struct sigaction after {};
  REQUIRE(::sigaction(SIGTERM, nullptr, &after) == 0);
  CHECK((after.sa_handler == before.sa_handler));
  REQUIRE(::sigaction(SIGTERM, &of_doctest, nullptr) == 0);
}
