#include "engine/quantize/recipe/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <system_error>

#include "gguf-like-format/temporary_file.h"

namespace tessera::quantize {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMagic = 0x31545241'50514f51u;  // "QOQPART1" as little-endian bytes
constexpr const char* kEnding = ".part";

// What stands before the content of every file.
struct Preamble {
  uint64_t magic = kMagic;
  uint64_t key = 0;
  uint64_t bytes = 0;
  uint64_t hash = 0;
};

std::span<const std::byte> bytes_of(const Preamble& preamble) {
  return std::as_bytes(std::span(&preamble, 1));
}

// The content of a file of this run, whole and undamaged; nothing otherwise.
std::optional<MappedFile> read_part(const std::string& path, uint64_t key) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored) || fs::file_size(path, ignored) < sizeof(Preamble))
    return std::nullopt;
  MappedFile file = MappedFile::map(path);
  const std::span<const std::byte> all = file.bytes();
  Preamble preamble;
  if (all.size() < sizeof(preamble)) return std::nullopt;
  std::memcpy(&preamble, all.data(), sizeof(preamble));
  const std::span<const std::byte> content = all.subspan(sizeof(preamble));
  if (preamble.magic != kMagic || preamble.key != key || preamble.bytes != content.size())
    return std::nullopt;
  if (preamble.hash != XXH64(content.data(), content.size(), 0)) return std::nullopt;
  return file;
}

MappedFile require_part(const std::string& path, uint64_t key) {
  std::optional<MappedFile> file = read_part(path, key);
  if (!file)
    throw FileError(
        fmt::format("{}: expected a part of this run, found none: remove the folder to start again", path));
  return std::move(*file);
}

// A part, or the temporary file that one was being written to when its process died (temporary_file.h).
bool is_part(const fs::path& path) {
  std::string name = path.filename().string();
  const bool temporary = path.extension() == ".partial" && name.front() == '.';
  if (temporary) name.erase(0, 1);
  const bool known = name.rfind("layer-", 0) == 0 || name.rfind("stream-", 0) == 0;
  return known && (temporary || path.extension() == kEnding);
}

}  // namespace

struct RunFolder::StreamWriter::State {
  TemporaryFile file;
  Preamble preamble;
  std::unique_ptr<XXH64_state_t, XXH_errorcode (*)(XXH64_state_t*)> hash{XXH64_createState(),
                                                                         XXH64_freeState};
  State(const std::string& path, uint64_t key) : file(path) {
    if (!hash) throw std::bad_alloc();
    preamble.key = key;
    XXH64_reset(hash.get(), 0);
  }
};

RunFolder::RunFolder(const std::string& target, uint64_t key) : path_(target + ".calibration"), key_(key) {
  std::error_code error;
  fs::create_directory(path_, error);
  if (error) throw FileError(fmt::format("{}: could not be made: {}", path_, error.message()));
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) throw FileError(fmt::format("{}: could not be opened: {}", path_, std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    ::close(lock_);
    throw FileError(reason == EWOULDBLOCK
                        ? fmt::format("{}: another process is making this file", path_)
                        : fmt::format("{}: could not be locked: {}", path_, std::strerror(reason)));
  }
}

RunFolder::~RunFolder() { ::close(lock_); }

const std::string& RunFolder::path() const { return path_; }

std::string RunFolder::layer_path(size_t layer) const {
  return fmt::format("{}/layer-{}{}", path_, layer, kEnding);
}

std::string RunFolder::stream_path(size_t layer) const {
  return fmt::format("{}/stream-{}{}", path_, layer, kEnding);
}

size_t RunFolder::finished_layers(size_t layers, uint64_t stream_floats) {
  size_t finished = 0;
  while (finished < layers && read_part(layer_path(finished), key_)) ++finished;
  const auto has_stream = [&](size_t layer) {
    const std::optional<MappedFile> file = read_part(stream_path(layer), key_);
    return file && file->bytes().size() == sizeof(Preamble) + stream_floats * sizeof(float);
  };
  while (finished > 0 && !has_stream(finished)) --finished;
  std::vector<fs::path> stale;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_, error)) {
    if (!is_part(entry.path())) continue;
    const std::string path = entry.path().string();
    bool keep = path == stream_path(finished) && finished > 0;
    for (size_t layer = 0; layer < finished; ++layer) keep = keep || path == layer_path(layer);
    if (!keep) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) fs::remove(path, error);
  return finished;
}

void RunFolder::store_layer(size_t layer, std::span<const std::byte> bytes) {
  Preamble preamble;
  preamble.key = key_;
  preamble.bytes = bytes.size();
  preamble.hash = XXH64(bytes.data(), bytes.size(), 0);
  TemporaryFile file(layer_path(layer));
  file.reserve(sizeof(preamble) + bytes.size());
  file.write(bytes_of(preamble), 0);
  file.write(bytes, sizeof(preamble));
  file.commit();
}

std::vector<std::byte> RunFolder::layer(size_t layer) const {
  const MappedFile file = require_part(layer_path(layer), key_);
  const std::span<const std::byte> content = file.bytes().subspan(sizeof(Preamble));
  return {content.begin(), content.end()};
}

std::span<const float> RunFolder::Stream::values() const {
  static_assert(sizeof(Preamble) % alignof(float) == 0, "floats follow the preamble aligned");
  const std::span<const std::byte> content = file_.bytes().subspan(sizeof(Preamble));
  return {reinterpret_cast<const float*>(content.data()), content.size() / sizeof(float)};
}

RunFolder::Stream RunFolder::open_stream(size_t layer) const {
  Stream stream;
  stream.file_ = require_part(stream_path(layer), key_);
  return stream;
}

RunFolder::StreamWriter::StreamWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
RunFolder::StreamWriter::~StreamWriter() = default;
RunFolder::StreamWriter::StreamWriter(StreamWriter&&) noexcept = default;
RunFolder::StreamWriter& RunFolder::StreamWriter::operator=(StreamWriter&&) noexcept = default;

RunFolder::StreamWriter RunFolder::write_stream(size_t layer) const {
  return StreamWriter(std::make_unique<StreamWriter::State>(stream_path(layer), key_));
}

void RunFolder::StreamWriter::append(std::span<const float> values) {
  const std::span<const std::byte> bytes = std::as_bytes(values);
  state_->file.write(bytes, sizeof(Preamble) + state_->preamble.bytes);
  state_->preamble.bytes += bytes.size();
  XXH64_update(state_->hash.get(), bytes.data(), bytes.size());
}

void RunFolder::StreamWriter::commit() {
  state_->preamble.hash = XXH64_digest(state_->hash.get());
  state_->file.write(bytes_of(state_->preamble), 0);
  state_->file.commit();
}

void RunFolder::remove_stream(size_t layer) {
  std::error_code ignored;
  fs::remove(stream_path(layer), ignored);
}

void RunFolder::remove() {
  finished_layers(0, 0);
  std::error_code ignored;
  fs::remove(path_, ignored);  // fails, as it should, when it holds anything else
}

}  // namespace tessera::quantize
