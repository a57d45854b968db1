#include "gguf-like-format/tess/tess_file.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <set>
#include <unordered_map>
#include <utility>

#include "gguf-like-format/column_order.h"
#include "gguf-like-format/mapped_file.h"
#include "gguf-like-format/tess/tensor_scales.h"
#include "gguf-like-format/tess/tess_header.h"
#include "gguf-like-format/tess/tess_layout.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

static_assert(std::endian::native == std::endian::little, "files are little-endian and used as they lie");

namespace {

constexpr size_t kMemoryAlignment = tile::kLineBytes;

template <typename T>
T read_field(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.subspan(offset, sizeof(T)).data(), sizeof(T));
  return value;
}

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

[[noreturn]] void refuse(const std::string& file, std::string_view field, std::string_view expected,
                         std::string_view found) {
  throw FileError(fmt::format("{}: {}: expected {}, found {}", file, field, expected, found));
}

// What to do with a file of a checkpoint that was given for a .tess file.
std::string_view checkpoint_hint(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), kTessPrefixBytes);
  if (text.front() == '{' || text.substr(8, 2) == "{\"")
    return ", a file of a checkpoint: give the folder that holds it";
  return "";
}

// Checks the 64 fixed bytes and returns the header's JSON text.
std::string_view check_prefix(std::span<const std::byte> bytes, const std::string& file) {
  constexpr std::array<char, 8> magic{'T', 'E', 'S', 'S', 'E', 'R', 'A', '\0'};
  if (bytes.size() < kTessPrefixBytes)
    refuse(file, "file bytes", fmt::format("at least {}", kTessPrefixBytes), fmt::format("{}", bytes.size()));
  if (std::memcmp(bytes.data(), magic.data(), magic.size()) != 0)
    refuse(file, "magic", "\"TESSERA\" and a zero byte",
           fmt::format("\"{}\"{}", printable({reinterpret_cast<const char*>(bytes.data()), magic.size()}),
                       checkpoint_hint(bytes)));
  const auto version = read_field<uint32_t>(bytes, 8);
  if (version == 0 || version > kTessVersion)
    refuse(file, "format version", fmt::format("1 to {}, the newest this program reads", kTessVersion),
           fmt::format("{}", version));
  if (const auto flags = read_field<uint32_t>(bytes, 12); flags != 0)
    refuse(file, "flags", "0", fmt::format("{}", flags));
  const auto header_bytes = read_field<uint64_t>(bytes, 16);
  if (header_bytes > kMostTessHeaderBytes)
    refuse(file, "header bytes", fmt::format("at most {}", kMostTessHeaderBytes),
           fmt::format("{}", header_bytes));
  if (const auto file_bytes = read_field<uint64_t>(bytes, 24); file_bytes != bytes.size())
    refuse(file, "file bytes", fmt::format("{} as the header says", file_bytes),
           fmt::format("{}: the file was cut short or something was appended", bytes.size()));
  if (header_bytes > bytes.size() - kTessPrefixBytes)
    refuse(file, "header bytes", fmt::format("at most the {} that follow", bytes.size() - kTessPrefixBytes),
           fmt::format("{}", header_bytes));
  if (!all_zero(bytes.subspan(40, 24))) refuse(file, "reserved bytes 40 to 63", "zeros", "other bytes");
  const auto text = bytes.subspan(kTessPrefixBytes, static_cast<size_t>(header_bytes));
  const uint64_t hash = XXH64(text.data(), text.size(), 0);
  if (const auto stored = read_field<uint64_t>(bytes, 32); stored != hash)
    refuse(file, "header hash", fmt::format("{:016x}", stored),
           fmt::format("{:016x}: the header is damaged", hash));
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

}  // namespace

struct TessFile::State {
  MappedFile mapping;  // empty when the bytes belong to the caller
  std::span<const std::byte> bytes;
  bool resident = true;
  std::string path;
  ModelHeader header;
  std::vector<StoredTensor> tensors;
  std::vector<uint64_t> hashes;  // as stored, one per tensor
  std::unordered_map<std::string_view, size_t> index;

  void load();
  void take_orders(const TessFile& base, const TessFile& other,
                   const std::function<bool(std::string_view)>& from_other);
};

// Everything is checked before a view of a tensor is made; only pages of the header and of orders of columns
// are touched.
void TessFile::State::load() {
  const std::string_view text = check_prefix(bytes, path);
  TessHeader parsed = read_tess_header(text, path);
  const uint64_t header_end = kTessPrefixBytes + text.size();
  check_placement(parsed.tensors, header_end, bytes.size(), path);
  check_tensor_shapes(parsed.tensors, parsed.model.hyperparameters, path);
  const size_t data_start =
      parsed.tensors.empty() ? bytes.size() : static_cast<size_t>(parsed.tensors.front().offset);
  if (!all_zero(bytes.subspan(header_end, data_start - header_end)))
    refuse(path, "padding after the header", "zeros", "other bytes");
  header = std::move(parsed.model);
  tensors.reserve(parsed.tensors.size());
  for (TensorRecord& record : parsed.tensors) {
    tensors.push_back({std::move(record.name), record.scheme, std::move(record.shape),
                       bytes.subspan(static_cast<size_t>(record.offset), static_cast<size_t>(record.bytes))});
    hashes.push_back(record.xxh64);
    const StoredTensor& tensor = tensors.back();
    if (matrices_in_order(tensor.name).empty()) continue;
    // Ops follow it without looking.
    if (const std::string fault = column_order_fault(tensor.bytes); !fault.empty())
      throw FileError(fmt::format("{}: tensor {}: {}", path, printable(tensor.name), fault));
  }
  for (size_t i = 0; i < tensors.size(); ++i) index.emplace(tensors[i].name, i);
}

// Replaces, adds and removes orders of columns so that each is that of the file where its matrices are from.
void TessFile::State::take_orders(const TessFile& base, const TessFile& other,
                                  const std::function<bool(std::string_view)>& from_other) {
  std::set<std::string> names;
  for (const TessFile* file : {&base, &other})
    for (const StoredTensor& tensor : file->tensors())
      if (!matrices_in_order(tensor.name).empty()) names.insert(tensor.name);
  for (const std::string& name : names) {
    const std::vector<std::string> matrices = matrices_in_order(name);
    const auto picked = static_cast<size_t>(std::count_if(matrices.begin(), matrices.end(), from_other));
    const StoredTensor* mine = base.find(name);
    const StoredTensor* theirs = other.find(name);
    const bool equal = mine != nullptr && theirs != nullptr && std::ranges::equal(mine->bytes, theirs->bytes);
    if (picked == 0 || equal) continue;
    if (picked != matrices.size())
      refuse(path, fmt::format("tensor {}", name),
             fmt::format("the same order of columns as in {}", other.path()),
             "another: its matrices cannot be mixed");
    const auto place = static_cast<std::ptrdiff_t>(
        std::find_if(tensors.begin(), tensors.end(),
                     [&](const StoredTensor& each) { return each.name == name; }) -
        tensors.begin());
    if (mine != nullptr) {
      tensors.erase(tensors.begin() + place);
      hashes.erase(hashes.begin() + place);
    }
    if (theirs != nullptr) {
      tensors.push_back(*theirs);
      hashes.push_back(other.state_->hashes[other.state_->index.at(name)]);
    }
  }
}

TessFile::TessFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
TessFile::~TessFile() = default;

std::unique_ptr<TessFile> TessFile::open(const std::string& path, bool use_mmap) {
  return open(path, use_mmap, path);
}

std::unique_ptr<TessFile> TessFile::open(const std::string& path, bool use_mmap, const std::string& name) {
  auto state = std::make_unique<State>();
  state->path = name;
  state->mapping = use_mmap ? MappedFile::map(path) : MappedFile::read(path);
  state->bytes = state->mapping.bytes();
  state->resident = !use_mmap;
  state->load();
  return std::unique_ptr<TessFile>(new TessFile(std::move(state)));
}

std::unique_ptr<TessFile> TessFile::from_memory(std::span<const std::byte> bytes, const std::string& name) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kMemoryAlignment != 0)
    refuse(name, "address", fmt::format("a multiple of {}", kMemoryAlignment), "another");
  auto state = std::make_unique<State>();
  state->path = name;
  state->bytes = bytes;
  state->load();
  return std::unique_ptr<TessFile>(new TessFile(std::move(state)));
}

std::unique_ptr<TessFile> TessFile::mixed(const TessFile& base, const TessFile& other,
                                          const std::function<bool(std::string_view)>& from_other) {
  auto state = std::make_unique<State>();
  state->path = base.path();
  state->bytes = base.mapped_bytes();
  state->resident = base.resident();
  state->header = base.header();
  state->tensors.assign(base.tensors().begin(), base.tensors().end());
  state->hashes = base.state_->hashes;
  for (size_t i = 0; i < state->tensors.size(); ++i) {
    StoredTensor& tensor = state->tensors[i];
    if (from_other(tensor.name) && matrices_in_order(tensor.name).empty()) {
      const StoredTensor& replacement = other.require(tensor.name);
      if (replacement.shape != tensor.shape)
        refuse(other.path(), fmt::format("tensor {}: shape", tensor.name),
               fmt::format("[{}] as in {}", fmt::join(tensor.shape, ", "), base.path()),
               fmt::format("[{}]", fmt::join(replacement.shape, ", ")));
      state->hashes[i] = other.state_->hashes[other.state_->index.at(tensor.name)];
      tensor = replacement;
    }
  }
  state->take_orders(base, other, from_other);
  for (size_t i = 0; i < state->tensors.size(); ++i) state->index.emplace(state->tensors[i].name, i);
  return std::unique_ptr<TessFile>(new TessFile(std::move(state)));
}

const std::string& TessFile::path() const { return state_->path; }
const ModelHeader& TessFile::header() const { return state_->header; }
std::span<const StoredTensor> TessFile::tensors() const { return state_->tensors; }
std::span<const std::byte> TessFile::mapped_bytes() const { return state_->bytes; }

const StoredTensor* TessFile::find(std::string_view name) const {
  const auto entry = state_->index.find(name);
  return entry == state_->index.end() ? nullptr : &state_->tensors[entry->second];
}

const StoredTensor& TessFile::require(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  if (tensor == nullptr)
    throw FileError(fmt::format("{}: tensor {}: missing", state_->path, printable(name)));
  return *tensor;
}

bool TessFile::resident() const { return state_->resident; }

std::vector<std::string> TessFile::verify() const {
  std::vector<std::string> faults;
  const auto report = [&](const StoredTensor& tensor, const std::string& fault) {
    faults.push_back(fmt::format("{}: tensor {}: {}", state_->path, tensor.name, fault));
  };
  for (size_t i = 0; i < state_->tensors.size(); ++i) {
    const StoredTensor& tensor = state_->tensors[i];
    const uint64_t hash = XXH64(tensor.bytes.data(), tensor.bytes.size(), 0);
    if (hash != state_->hashes[i])
      report(tensor, fmt::format("xxh64: expected {:016x}, found {:016x}", state_->hashes[i], hash));
    if (const std::string fault = find_scale_fault(tensor); !fault.empty()) report(tensor, fault);
    const std::span<const std::byte> all = state_->bytes;
    const bool own = std::less_equal<>{}(all.data(), tensor.bytes.data()) &&
                     std::less<>{}(tensor.bytes.data(), all.data() + all.size());
    if (!own) continue;  // of a mixed file: what lies around it is the other file's
    const auto begin = static_cast<size_t>(tensor.bytes.data() - all.data());
    const size_t end = begin + tensor.bytes.size();
    const size_t padding = tile::round_up(end, kTessAlignment) - end;
    if (!all_zero(all.subspan(end, padding))) report(tensor, "padding: expected zeros, found other bytes");
  }
  return faults;
}

void lock_pages(const TessFile& file) {
  const std::span<const std::byte> bytes = file.mapped_bytes();
  if (::mlock(bytes.data(), bytes.size()) == 0) return;
  const int error = errno;
  struct rlimit limit {};
  std::string allowed = "unknown";
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
    allowed = limit.rlim_cur == RLIM_INFINITY ? "none" : fmt::format("{} bytes", limit.rlim_cur);
  throw FileError(
      fmt::format("{}: --mlock: {} bytes cannot be locked in memory: {} (limit: {}, see ulimit -l)",
                  file.path(), bytes.size(), std::strerror(error), allowed));
}

}  // namespace tessera
