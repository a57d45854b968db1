// The cache of converted models: which sources count as the same, locks, records, and what is removed for
// room. Whole runs: tests/cli/cache_test.py.
#include "engine/model_cache/model_cache.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "gguf-like-format/memory_file.h"
#include "tests/unit/crafted_files.h"

using namespace tessera;
using namespace tessera::crafted;
using namespace tessera::model_cache;

namespace {

void put_file(const std::string& path, const std::string& content) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

std::string hash_of(const std::string& checkpoint) { return content_hash(list_source_files(checkpoint), {}); }

// A model that was last used so many seconds after some time.
void store(const ModelCache& cache, const std::string& name, size_t bytes, int64_t seconds) {
  put_file(cache.model_path(name), std::string(bytes, 'x'));
  const timespec times[2] = {{1'700'000'000 + seconds, 0}, {1'700'000'000 + seconds, 0}};
  REQUIRE(::utimensat(AT_FDCWD, cache.model_path(name).c_str(), times, 0) == 0);
}

std::vector<std::string> names(const ModelCache& cache) {
  std::vector<std::string> found;
  for (const StoredModel& model : cache.models()) found.push_back(model.name);
  return found;
}

constexpr uint64_t kNoLimit = uint64_t{1} << 40;

}  // namespace

TEST_CASE("the hash of a file does not depend on its name, and that of a folder on the names inside") {
  const Folder folder;
  put_file(folder / "a.gguf", "GGUF one");
  put_file(folder / "elsewhere/b.gguf", "GGUF one");
  put_file(folder / "c.gguf", "GGUF two");
  CHECK(hash_of(folder / "a.gguf") == hash_of(folder / "elsewhere/b.gguf"));
  CHECK(hash_of(folder / "a.gguf") != hash_of(folder / "c.gguf"));
  for (const char* name : {"one", "two", "three", "four"}) {
    put_file(folder / (std::string(name) + "/config.json"), "{}");
    put_file(folder / (std::string(name) + "/.hidden"), name);
    put_file(folder / (std::string(name) + "/own.tess"), name);
  }
  put_file(folder / "three/more.json", "");
  put_file(folder / "four/fewer.json", "");
  CHECK(hash_of(folder / "one") == hash_of(folder / "two"));
  CHECK(hash_of(folder / "one") == hash_of((folder / "one") + "/"));
  CHECK(hash_of(folder / "one") != hash_of(folder / "three"));
  CHECK(hash_of(folder / "three") != hash_of(folder / "four"));
}

TEST_CASE("all parts of a GGUF file in parts count") {
  const Folder folder;
  for (const char* part : {"1", "2", "3"})
    put_file(folder / (std::string("m-0000") + part + "-of-00003.gguf"), std::string("GGUF") + part);
  const std::string first = folder / "m-00001-of-00003.gguf";
  const SourceFiles before = list_source_files(first);
  CHECK(before.files.size() == 3);
  CHECK(before.bytes() == 15);
  const std::string hash = hash_of(first);
  put_file(folder / "m-00003-of-00003.gguf", "GGUF4");
  CHECK(list_source_files(first) != before);
  CHECK(hash_of(first) != hash);
  CHECK(list_source_files(folder / "m-00002-of-00003.gguf").files.size() == 1);
}

TEST_CASE("a file that was just written is waited for, and on a coarse clock not trusted") {
  const Folder folder;
  put_file(folder / "a.gguf", "GGUF");
  SourceFiles source = list_source_files(folder / "a.gguf");
  CHECK(wait_until_settled(source));
  source.files[0].changed = source.files[0].changed / 1'000'000'000 * 1'000'000'000;
  CHECK_FALSE(wait_until_settled(source));  // two seconds have not passed
  source.files[0].changed -= 5'000'000'000;
  source.files[0].modified = source.files[0].changed;
  CHECK(wait_until_settled(source));
}

TEST_CASE("locks: use is shared, removal and making are alone, models do not disturb each other") {
  const Folder folder;
  const auto attempt = [&](const char* model, LockKind kind) {
    return CacheLock::attempt(folder.path(), model, kind);
  };
  {
    const CacheLock first = attempt("a", LockKind::use);
    const CacheLock second = attempt("a", LockKind::use);
    CHECK((first.taken() && second.taken()));
    CHECK_FALSE(attempt("a", LockKind::removal).taken());
    CHECK(attempt("b", LockKind::removal).taken());
    const CacheLock making = attempt("a", LockKind::making);
    CHECK(making.taken());
    CHECK_FALSE(attempt("a", LockKind::making).taken());
  }
  const CacheLock removal = attempt("a", LockKind::removal);
  CHECK(removal.taken());
  CHECK_FALSE(attempt("a", LockKind::use).taken());
}

TEST_CASE("records come back as they were, and damaged or foreign ones not at all") {
  const Folder folder;
  const ModelCache cache(folder / "cache");
  REQUIRE_FALSE(cache.create());
  put_file(folder / "a.gguf", "GGUF");
  const SourceFiles source = list_source_files(folder / "a.gguf");
  store(cache, "made", 10, 0);
  CHECK_FALSE(cache.find_record(source.path));
  cache.remember({source, "content", "made", stamp_of(cache.model_path("made"))});
  const auto found = cache.find_record(source.path);
  REQUIRE(found);
  CHECK(found->source == source);
  CHECK(found->content == "content");
  CHECK(found->model == "made");
  CHECK(found->model_stamp == stamp_of(cache.model_path("made")));
  CHECK(cache.models().front().sources == std::vector<std::string>{source.path});
  const auto record = std::filesystem::directory_iterator(folder / "cache/sources")->path();
  for (const char* text : {"", "[]", "{\"version\":1}", "{\"version\":1,\"source\":3}"}) {
    put_file(record.string(), text);
    CHECK_FALSE(cache.find_record(source.path));
    CHECK(cache.models().front().sources.empty());
  }
}

TEST_CASE("room is made by removing what was used longest ago and is not in use, and never in vain") {
  const Folder folder;
  const ModelCache cache(folder / "cache");
  REQUIRE_FALSE(cache.create());
  store(cache, "second", 1000, 20);
  store(cache, "oldest", 1000, 10);
  store(cache, "newest", 1000, 30);
  using Names = std::vector<std::string>;
  CHECK(names(cache) == Names{"newest", "second", "oldest"});
  CHECK(cache.make_room(500, 3500) == 500);
  CHECK(cache.make_room(4000, 3999) == 999);              // larger than the limit: nothing goes
  CHECK(cache.make_room(kNoLimit, kNoLimit) < kNoLimit);  // larger than the disk
  CHECK(names(cache) == Names{"newest", "second", "oldest"});
  CHECK(cache.make_room(501, 3500) == 1500);
  CHECK(names(cache) == Names{"newest", "second"});
  {
    const CacheLock used = CacheLock::wait(cache.folder(), "second", LockKind::use);
    CHECK(cache.make_room(2000, 3000) == 2000);
    CHECK(names(cache) == Names{"second"});
    CHECK(cache.make_room(2500, 3000) == 2000);
  }
  // What others are writing counts, what nobody writes any more goes.
  put_file(folder / "cache/models/.gone.tess.4000000-0.partial", std::string(700, 'x'));
  CHECK(cache.make_room(100, 3000) == 2000);
  CHECK_FALSE(std::filesystem::exists(folder / "cache/models/.gone.tess.4000000-0.partial"));
}

TEST_CASE("a file in memory is written within what was reserved, and read-only in the end") {
  MemoryFile file("in memory");
  file.reserve(10000);
  CHECK(std::all_of(file.bytes().begin(), file.bytes().end(),
                    [](std::byte byte) { return byte == std::byte{0}; }));
  const std::string text = "text";
  file.write(std::as_bytes(std::span(text)), 9996);
  CHECK_THROWS_AS(file.write(std::as_bytes(std::span(text)), 9997), FileWriteError);
  CHECK_THROWS_AS(file.write(std::as_bytes(std::span(text)), ~uint64_t{0}), FileWriteError);
  file.commit();
  const MemoryFile moved = std::move(file);
  CHECK(moved.bytes().size() == 10000);
  CHECK(std::memcmp(moved.bytes().data() + 9996, "text", 4) == 0);
}
