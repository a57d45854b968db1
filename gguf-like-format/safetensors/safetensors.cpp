#include "gguf-like-format/safetensors/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/mapped_file.h"
#include "gguf-like-format/stand_ins.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;

constexpr uint64_t kMostHeaderBytes = 100'000'000;
constexpr uint64_t kLengthBytes = 8;
constexpr size_t kMostRank = 8;
constexpr size_t kMostNameBytes = 4096;
constexpr size_t kMostIndexBytes = size_t{64} << 20;
constexpr size_t kMostShards = 1000;
constexpr uint64_t kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

struct TypeName {
  std::string_view name;
  CheckpointType type;
  uint64_t bytes;
};
constexpr TypeName kTypes[] = {{"F32", CheckpointType::f32, 4},   {"F16", CheckpointType::f16, 2},
                               {"BF16", CheckpointType::bf16, 2}, {"F8_E4M3", CheckpointType::f8_e4m3, 1},
                               {"I64", CheckpointType::i64, 8},   {"I32", CheckpointType::i32, 4},
                               {"I8", CheckpointType::i8, 1},     {"U8", CheckpointType::u8, 1}};

const TypeName& entry_of(CheckpointType type) {
  return *std::find_if(std::begin(kTypes), std::end(kTypes),
                       [type](const TypeName& entry) { return entry.type == type; });
}

// A tensor and where its bytes begin in the data, kept to check that the data is covered without holes.
struct Placed {
  CheckpointTensor tensor;
  uint64_t begin = 0;
  uint64_t end = 0;
};

Placed read_entry(const std::string& name, const json& value, std::span<const std::byte> data,
                  const std::string& file) {
  const JsonFields fields(value, file, fmt::format("tensor {}", printable(name)));
  if (name.empty() || name.size() > kMostNameBytes)
    throw FileError(
        fmt::format("{}: tensor name: expected 1 to {} bytes, found {}", file, kMostNameBytes, name.size()));
  Placed placed;
  placed.tensor.name = name;
  const std::string type = fields.text("dtype", kMostNameBytes);
  const auto* entry = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&type](const TypeName& t) { return t.name == type; });
  if (entry == std::end(kTypes)) fields.refuse_value("dtype", "F32, F16, BF16, F8_E4M3, I64, I32, I8 or U8");
  placed.tensor.type = entry->type;
  const json& shape = fields.array("shape");
  if (shape.size() > kMostRank)
    fields.refuse("shape", fmt::format("at most {} dimensions", kMostRank), std::to_string(shape.size()));
  uint64_t bytes = entry->bytes;
  for (size_t i = 0; i < shape.size(); ++i) {
    const uint64_t dimension =
        fields.element(shape[i], fmt::format("{}[{}]", fields.label("shape"), i), 0, kMost);
    if (dimension != 0 && bytes > kMost / dimension)
      fields.refuse_value("shape", "a product of fewer than 2^63 bytes");
    bytes *= dimension;
    placed.tensor.shape.push_back(dimension);
  }
  const json& offsets = fields.array("data_offsets");
  if (offsets.size() != 2) fields.refuse("data_offsets", "two offsets", std::to_string(offsets.size()));
  const std::string label = fields.label("data_offsets");
  placed.begin = fields.element(offsets[0], label + "[0]", 0, data.size());
  placed.end = fields.element(offsets[1], label + "[1]", placed.begin, data.size());
  if (placed.end - placed.begin != bytes)
    fields.refuse("data_offsets", fmt::format("{} bytes for {} and shape {}", bytes, type, shape.dump()),
                  std::to_string(placed.end - placed.begin));
  placed.tensor.bytes = data.subspan(static_cast<size_t>(placed.begin), static_cast<size_t>(bytes));
  return placed;
}

void check_metadata(const json& value, const std::string& file) {
  const JsonFields fields(value, file, "__metadata__");
  for (const auto& [key, text] : value.items())
    if (!text.is_string()) fields.refuse(printable(key), "a string", "something else");
}

void check_coverage(const std::vector<Placed>& in_order, uint64_t data_bytes, const std::string& file) {
  uint64_t covered = 0;
  for (const Placed& placed : in_order) {
    if (placed.begin != covered)
      throw FileError(fmt::format("{}: tensor {}.data_offsets: expected to begin at {}, found {}: {}", file,
                                  printable(placed.tensor.name), covered, placed.begin,
                                  placed.begin < covered ? "tensors overlap" : "the data has a hole"));
    covered = placed.end;
  }
  if (covered != data_bytes)
    throw FileError(fmt::format("{}: data: expected {} bytes of tensors, found {}: the data has a hole", file,
                                data_bytes, covered));
}

// A shard is a plain file name in the index's folder, so that an index cannot name files elsewhere.
void check_shard_name(const std::string& shard, const JsonFields& fields, const std::string& tensor) {
  const bool plain = !shard.empty() && shard.size() <= 255 && shard != "." && shard != ".." &&
                     shard.find('/') == std::string::npos && shard.find('\\') == std::string::npos &&
                     shard.find('\0') == std::string::npos;
  if (!plain)
    fields.refuse(printable(tensor), "the name of a file in the same folder",
                  fmt::format("\"{}\"", printable(shard)));
}

}  // namespace

std::string_view type_name(CheckpointType type) { return entry_of(type).name; }

uint64_t CheckpointTensor::elements() const { return bytes.size() / entry_of(type).bytes; }

std::vector<CheckpointTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < kLengthBytes)
    throw FileError(
        fmt::format("{}: header length: expected {} bytes, found {}", file, kLengthBytes, bytes.size()));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMostHeaderBytes)
    throw FileError(
        fmt::format("{}: header length: expected at most {}, found {}", file, kMostHeaderBytes, length));
  if (length > bytes.size() - kLengthBytes)
    throw FileError(fmt::format("{}: header length: expected at most the {} bytes that follow, found {}",
                                file, bytes.size() - kLengthBytes, length));
  const auto header = bytes.subspan(kLengthBytes, static_cast<size_t>(length));
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  if (text.empty() || text.front() != '{')
    throw FileError(fmt::format("{}: header: expected to begin with \"{{\", found \"{}\"", file,
                                printable(text.substr(0, 1))));
  const auto data = bytes.subspan(kLengthBytes + static_cast<size_t>(length));
  const json document = parse_strict_json(text, file + ": header", {kMostHeaderBytes, 8});
  std::vector<Placed> placed;
  for (const auto& [name, value] : document.items()) {
    if (name == "__metadata__")
      check_metadata(value, file);
    else
      placed.push_back(read_entry(name, value, data, file));
  }
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_coverage(placed, data.size(), file);
  std::vector<CheckpointTensor> tensors;
  for (Placed& entry : placed) tensors.push_back(std::move(entry.tensor));
  return tensors;
}

struct Checkpoint::State {
  std::vector<MappedFile> files;
  std::vector<CheckpointTensor> tensors;
  std::unordered_map<std::string_view, size_t> index;

  void add_file(const std::string& path);
  void add_shards(const std::string& folder, const std::string& index_path);
  void make_index();
};

void Checkpoint::State::add_file(const std::string& path) {
  files.push_back(MappedFile::map(path));
  for (CheckpointTensor& tensor : parse_safetensors(files.back().bytes(), path))
    tensors.push_back(std::move(tensor));
}

void Checkpoint::State::make_index() {
  for (size_t i = 0; i < tensors.size(); ++i) index.emplace(tensors[i].name, i);
}

// Every tensor of the index must be in the shard it names, and every tensor of a shard in the index: anything
// else is a mixture of two checkpoints.
void Checkpoint::State::add_shards(const std::string& folder, const std::string& index_path) {
  const json document = read_strict_json(index_path, {kMostIndexBytes, 16});
  const JsonFields fields(document, index_path, "");
  const JsonFields map_fields = fields.object("weight_map");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, value] : fields.require("weight_map").items()) {
    if (!value.is_string()) map_fields.refuse(printable(tensor), "a file name", "something else");
    const auto& shard = value.get_ref<const std::string&>();
    check_shard_name(shard, map_fields, tensor);
    shards[shard].push_back(tensor);
  }
  if (shards.empty() || shards.size() > kMostShards)
    fields.refuse("weight_map", fmt::format("1 to {} shards", kMostShards), std::to_string(shards.size()));
  for (auto& [shard, names] : shards) {
    const size_t first = tensors.size();
    const std::string path = folder + "/" + shard;
    if (std::error_code error; !std::filesystem::exists(path, error))
      throw FileError(fmt::format("{}: {}; {} names it", path, why_not_opened(path, ENOENT), index_path));
    add_file(path);
    std::vector<std::string> found;
    for (size_t i = first; i < tensors.size(); ++i) found.push_back(tensors[i].name);
    std::sort(found.begin(), found.end());
    std::sort(names.begin(), names.end());
    const auto [listed, held] = std::mismatch(names.begin(), names.end(), found.begin(), found.end());
    if (listed != names.end() && (held == found.end() || *listed < *held))
      throw FileError(
          fmt::format("{}: tensor {}: missing, but the index says it is here", path, printable(*listed)));
    if (held != found.end())
      throw FileError(
          fmt::format("{}: tensor {}: the index does not say it is here", path, printable(*held)));
  }
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

Checkpoint Checkpoint::open(const std::string& path) {
  auto state = std::make_unique<State>();
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    const std::string single = path + "/model.safetensors";
    const std::string index = path + "/model.safetensors.index.json";
    if (std::filesystem::exists(single, error))
      state->add_file(single);
    else if (std::filesystem::exists(index, error))
      state->add_shards(path, index);
    else
      throw FileError(
          fmt::format("{}: expected model.safetensors or model.safetensors.index.json, found neither", path));
  } else {
    state->add_file(path);
  }
  state->make_index();
  return Checkpoint(std::move(state));
}

std::span<const CheckpointTensor> Checkpoint::tensors() const { return state_->tensors; }

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  const auto entry = state_->index.find(name);
  return entry == state_->index.end() ? nullptr : &state_->tensors[entry->second];
}

void read_floats(const CheckpointTensor& tensor, uint64_t first, std::span<float> out) {
  const uint64_t elements = tensor.elements();
  if (first > elements || out.size() > elements - first)
    throw FileError(fmt::format("tensor {}: expected elements within {}, found {} from {}",
                                printable(tensor.name), elements, out.size(), first));
  if (out.empty()) return;
  const auto at = static_cast<size_t>(first);
  if (tensor.type == CheckpointType::f32) {
    std::memcpy(out.data(), tensor.bytes.subspan(4 * at).data(), out.size_bytes());
    return;
  }
  if (tensor.type != CheckpointType::f16 && tensor.type != CheckpointType::bf16)
    throw FileError(fmt::format("tensor {}: dtype: expected F32, F16 or BF16, found {}",
                                printable(tensor.name), type_name(tensor.type)));
  const std::byte* const source = tensor.bytes.subspan(2 * at).data();
  const bool half = tensor.type == CheckpointType::f16;
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, source + 2 * i, 2);
    out[i] = half ? f16_to_f32(bits) : bf16_to_f32(bits);
  }
}

}  // namespace tessera
