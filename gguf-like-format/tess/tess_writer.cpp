#include "gguf-like-format/tess/tess_writer.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <array>
#include <cstring>
#include <utility>

#include "gguf-like-format/memory_file.h"
#include "gguf-like-format/temporary_file.h"
#include "gguf-like-format/tess/tess_file.h"
#include "gguf-like-format/tess/tess_header.h"
#include "gguf-like-format/tess/tess_layout.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

// Places the tensors behind a header whose length depends, through the digits of the offsets, on where they
// are placed. Starting low, the header can only grow, so this ends after a few rounds.
uint64_t settle_layout(const ModelHeader& header, std::vector<TensorRecord>& records,
                       const std::string& path) {
  uint64_t header_end = kTessPrefixBytes;
  for (;;) {
    const uint64_t file_bytes = place_tensors(records, header_end, path);
    const uint64_t needed = kTessPrefixBytes + write_tess_header(header, records, path).size();
    if (tile::round_up(needed, kTessAlignment) <= tile::round_up(header_end, kTessAlignment))
      return file_bytes;
    header_end = needed;
  }
}

std::array<std::byte, kTessPrefixBytes> prefix(std::string_view header, uint64_t file_bytes) {
  std::array<std::byte, kTessPrefixBytes> out{};
  const auto put = [&out](size_t offset, const auto& value) {
    std::memcpy(out.data() + offset, &value, sizeof(value));
  };
  put(0, std::array<char, 8>{'T', 'E', 'S', 'S', 'E', 'R', 'A', '\0'});
  put(8, kTessVersion);
  put(16, static_cast<uint64_t>(header.size()));
  put(24, file_bytes);
  put(32, static_cast<uint64_t>(XXH64(header.data(), header.size(), 0)));
  return out;
}

}  // namespace

struct TessWriter::State {
  std::string path;
  ModelHeader header;
  std::vector<TensorRecord> records;
  uint64_t file_bytes = 0;
  size_t header_bytes = 0;
  size_t next = 0;
  bool finished = false;
  std::unique_ptr<TemporaryFile> own_file;  // where no other target was given
  FileTarget* file = nullptr;

  void plan(const std::string& name, const ModelHeader& model, std::vector<PlannedTensor> tensors);
};

void TessWriter::State::plan(const std::string& name, const ModelHeader& model,
                             std::vector<PlannedTensor> tensors) {
  path = name;
  header = model;
  for (PlannedTensor& tensor : tensors)
    records.push_back({std::move(tensor.name), tensor.scheme, std::move(tensor.shape), 0, 0, 0});
  file_bytes = settle_layout(header, records, path);
  const std::string text = write_tess_header(header, records, path);
  header_bytes = text.size();
  // What the reader would refuse must not be written: the same checks, before any work is done.
  const TessHeader parsed = read_tess_header(text, path);
  check_placement(parsed.tensors, kTessPrefixBytes + text.size(), file_bytes, path);
  check_tensor_shapes(parsed.tensors, parsed.model.hyperparameters, path);
}

TessWriter::TessWriter(const std::string& path, const ModelHeader& header, std::vector<PlannedTensor> tensors)
    : state_(std::make_unique<State>()) {
  state_->plan(path, header, std::move(tensors));
  state_->own_file = std::make_unique<TemporaryFile>(path);
  state_->file = state_->own_file.get();
  state_->file->reserve(state_->file_bytes);
}

TessWriter::TessWriter(FileTarget& target, const std::string& name, const ModelHeader& header,
                       std::vector<PlannedTensor> tensors)
    : state_(std::make_unique<State>()) {
  state_->plan(name, header, std::move(tensors));
  state_->file = &target;
  state_->file->reserve(state_->file_bytes);
}

TessWriter::~TessWriter() = default;

uint64_t TessWriter::file_bytes() const { return state_->file_bytes; }

void TessWriter::write(std::span<const std::byte> bytes) {
  if (state_->finished || state_->next == state_->records.size())
    throw FileError(
        fmt::format("{}: all {} planned tensors are written already", state_->path, state_->records.size()));
  TensorRecord& record = state_->records[state_->next];
  if (bytes.size() != record.bytes)
    throw FileError(fmt::format("{}: tensor {}: expected {} bytes, found {}", state_->path, record.name,
                                record.bytes, bytes.size()));
  state_->file->write(bytes, record.offset);
  record.xxh64 = XXH64(bytes.data(), bytes.size(), 0);
  ++state_->next;
}

void TessWriter::finish() {
  if (state_->finished) throw FileError(fmt::format("{}: the file is finished already", state_->path));
  if (state_->next != state_->records.size())
    throw FileError(fmt::format("{}: tensor {}: planned but not written", state_->path,
                                state_->records[state_->next].name));
  const std::string text = write_tess_header(state_->header, state_->records, state_->path);
  if (text.size() != state_->header_bytes)
    throw FileError(fmt::format("{}: header bytes: expected {}, found {}", state_->path, state_->header_bytes,
                                text.size()));
  state_->file->write(std::as_bytes(std::span(text)), kTessPrefixBytes);
  state_->file->write(prefix(text, state_->file_bytes), 0);
  state_->file->commit();
  state_->finished = true;
}

struct TessImage::State {
  std::string name;
  ModelHeader header;
  std::vector<TensorRecord> records;
  MemoryFile memory;

  explicit State(const std::string& file_name) : name(file_name), memory(file_name) {}
};

TessImage::TessImage(const std::string& name, const ModelHeader& header, std::vector<PlannedTensor> tensors)
    : state_(std::make_unique<State>(name)) {
  state_->header = header;
  for (PlannedTensor& tensor : tensors)
    state_->records.push_back({std::move(tensor.name), tensor.scheme, std::move(tensor.shape), 0, 0, 0});
  state_->memory.reserve(settle_layout(header, state_->records, name));
}

TessImage::~TessImage() = default;
TessImage::TessImage(TessImage&&) noexcept = default;
TessImage& TessImage::operator=(TessImage&&) noexcept = default;

std::span<std::byte> TessImage::tensor(size_t index) {
  const TensorRecord& record = state_->records.at(index);
  return state_->memory.writable().subspan(static_cast<size_t>(record.offset),
                                           static_cast<size_t>(record.bytes));
}

void TessImage::finish() {
  for (size_t i = 0; i < state_->records.size(); ++i) {
    const std::span<const std::byte> bytes = tensor(i);
    state_->records[i].xxh64 = XXH64(bytes.data(), bytes.size(), 0);
  }
  const std::string text = write_tess_header(state_->header, state_->records, state_->name);
  state_->memory.write(prefix(text, state_->memory.bytes().size()), 0);
  state_->memory.write(std::as_bytes(std::span(text)), kTessPrefixBytes);
}

std::span<const std::byte> TessImage::bytes() const { return state_->memory.bytes(); }

}  // namespace tessera
