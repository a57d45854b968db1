#include "gguf-like-format/gguf/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "gguf-like-format/mapped_file.h"

namespace tessera {

static_assert(std::endian::native == std::endian::little, "GGUF files are read as they lie");

namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kOldestVersion = 2;
constexpr uint32_t kNewestVersion = 3;
constexpr uint64_t kMostKeyBytes = 65535;
constexpr uint64_t kMostNameBytes = 4096;
constexpr uint32_t kMostDimensions = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMostAlignment = uint64_t{1} << 31;
constexpr uint64_t kMostParts = 1000;
constexpr uint64_t kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
// The least that a pair (length and one byte of its key, type, value) and a tensor (length and one byte of
// its name, number of dimensions, one dimension, type, offset) take.
constexpr uint64_t kLeastPairBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

// Reads from front to back; every read is checked against the bytes that are left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  uint64_t left() const { return bytes_.size() - at_; }
  size_t at() const { return at_; }
  const std::string& file() const { return file_; }

  [[noreturn]] void refuse(std::string_view field, std::string_view expected, std::string_view found) const {
    throw FileError(fmt::format("{}: {}: expected {}, found {}", file_, field, expected, found));
  }

  std::span<const std::byte> bytes(uint64_t count, std::string_view field) {
    if (count > left()) refuse(field, fmt::format("{} bytes", count), fmt::format("{}", left()));
    const auto found = bytes_.subspan(at_, static_cast<size_t>(count));
    at_ += static_cast<size_t>(count);
    return found;
  }

  template <class T>
  T number(std::string_view field) {
    T value;
    std::memcpy(&value, bytes(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  // A length and as many bytes.
  std::string_view string(std::string_view field, uint64_t least, uint64_t most) {
    const auto length = number<uint64_t>(field);
    if (length > left())
      refuse(field, fmt::format("a length of at most the {} bytes that follow", left()),
             fmt::format("{}", length));
    if (length < least || length > most)
      refuse(field, fmt::format("{} to {} bytes", least, most), fmt::format("{}", length));
    const auto found = bytes(length, field);
    return {reinterpret_cast<const char*>(found.data()), found.size()};
  }

  // A count of items that take at least least_bytes each.
  uint64_t count(std::string_view field, uint64_t least_bytes) {
    const auto items = number<uint64_t>(field);
    if (items > left() / least_bytes)
      refuse(field, fmt::format("at most {} in the {} bytes that follow", left() / least_bytes, left()),
             fmt::format("{}", items));
    return items;
  }

  std::span<const std::byte> since(size_t begin) const { return bytes_.subspan(begin, at_ - begin); }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
  size_t at_ = 0;
};

GgufType read_type(Cursor& cursor, const std::string& field) {
  const auto type = cursor.number<uint32_t>(field);
  if (type >= kGgufTypes)
    cursor.refuse(field, fmt::format("a value type from 0 to {}", kGgufTypes - 1), fmt::format("{}", type));
  return static_cast<GgufType>(type);
}

void skip_strings(Cursor& cursor, uint64_t count, const std::string& field) {
  for (uint64_t i = 0; i < count; ++i) cursor.string(field, 0, kMost);
}

GgufValue read_value(Cursor& cursor, const std::string& field) {
  GgufValue value;
  value.type = read_type(cursor, field);
  value.is_array = value.type == GgufType::array;
  if (value.is_array) {
    value.type = read_type(cursor, field);
    if (value.type == GgufType::array) cursor.refuse(field, "an array of plain values", "an array of arrays");
    value.count = cursor.count(field, value.type == GgufType::string ? 8 : gguf_type_bytes(value.type));
  }
  if (value.type == GgufType::string) {
    const size_t begin = cursor.at();
    skip_strings(cursor, value.count, field);
    value.bytes = cursor.since(begin);
    return value;
  }
  value.bytes = cursor.bytes(value.count * gguf_type_bytes(value.type), field);
  if (value.type == GgufType::boolean) {
    for (const std::byte byte : value.bytes)
      if (std::to_integer<uint32_t>(byte) > 1)
        cursor.refuse(field, "a bool of 0 or 1", fmt::format("{}", std::to_integer<uint32_t>(byte)));
  }
  return value;
}

GgufMetadata read_metadata(Cursor& cursor, uint64_t count) {
  GgufMetadata::Values values;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key(cursor.string(fmt::format("key {}", i), 1, kMostKeyBytes));
    if (!values.emplace(key, read_value(cursor, printable(key))).second)
      cursor.refuse(printable(key), "a key that appears once", "it twice");
  }
  return {cursor.file(), std::move(values)};
}

struct Placed {
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

Placed read_tensor(Cursor& cursor, uint64_t index) {
  Placed placed;
  GgufTensor& tensor = placed.tensor;
  tensor.name = cursor.string(fmt::format("tensor {}: name", index), 1, kMostNameBytes);
  const std::string label = fmt::format("tensor \"{}\"", printable(tensor.name));
  const auto dimensions = cursor.number<uint32_t>(label);
  if (dimensions == 0 || dimensions > kMostDimensions)
    cursor.refuse(label, fmt::format("1 to {} dimensions", kMostDimensions), fmt::format("{}", dimensions));
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto dimension = cursor.number<uint64_t>(label);
    if (dimension == 0) cursor.refuse(label, "dimensions of at least 1", "0");
    if (elements > kMost / dimension)
      cursor.refuse(label, "fewer than 2^63 elements", fmt::format("{} times {}", elements, dimension));
    elements *= dimension;
    tensor.shape.insert(tensor.shape.begin(), dimension);
  }
  const auto type = cursor.number<uint32_t>(label);
  tensor.format = find_block_format(type);
  if (tensor.format == nullptr)
    cursor.refuse(label, fmt::format("one of the types {}", known_block_types()), block_type_name(type));
  if (tensor.shape.back() % tensor.format->values != 0)
    cursor.refuse(label,
                  fmt::format("a multiple of {} columns in {}", tensor.format->values, tensor.format->name),
                  fmt::format("{}", tensor.shape.back()));
  const uint64_t blocks = elements / tensor.format->values;
  if (blocks > kMost / tensor.format->bytes)
    cursor.refuse(label, "fewer than 2^63 bytes", fmt::format("{} blocks", blocks));
  placed.bytes = blocks * tensor.format->bytes;
  placed.offset = cursor.number<uint64_t>(label);
  return placed;
}

uint64_t read_alignment(const GgufMetadata& metadata) {
  constexpr std::string_view key = "general.alignment";
  const uint64_t alignment = metadata.optional_integer(key, 1, kMostAlignment).value_or(kDefaultAlignment);
  if (!std::has_single_bit(alignment)) metadata.refuse(key, "a power of two", fmt::format("{}", alignment));
  return alignment;
}

void place(Placed& placed, std::span<const std::byte> data, uint64_t alignment, const Cursor& cursor) {
  const std::string label = fmt::format("tensor \"{}\"", printable(placed.tensor.name));
  if (placed.offset % alignment != 0)
    cursor.refuse(label, fmt::format("an offset that is a multiple of {}", alignment),
                  fmt::format("{}", placed.offset));
  if (placed.offset > data.size() || placed.bytes > data.size() - placed.offset)
    cursor.refuse(label, fmt::format("{} bytes at offset {}", placed.bytes, placed.offset),
                  fmt::format("data of {} bytes", data.size()));
  placed.tensor.bytes = data.subspan(static_cast<size_t>(placed.offset), static_cast<size_t>(placed.bytes));
}

void check_distinct(const std::vector<Placed>& tensors, const Cursor& cursor) {
  std::unordered_set<std::string_view> names;
  std::vector<const Placed*> in_order;
  for (const Placed& each : tensors) {
    if (!names.insert(each.tensor.name).second)
      cursor.refuse(fmt::format("tensor \"{}\"", printable(each.tensor.name)), "a name that appears once",
                    "it twice");
    in_order.push_back(&each);
  }
  std::sort(in_order.begin(), in_order.end(),
            [](const Placed* a, const Placed* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < in_order.size(); ++i) {
    const Placed& before = *in_order[i - 1];
    const uint64_t end = before.offset + before.bytes;
    if (in_order[i]->offset < end)
      cursor.refuse(
          fmt::format("tensor \"{}\"", printable(in_order[i]->tensor.name)),
          fmt::format("an offset of at least {}, behind tensor \"{}\"", end, printable(before.tensor.name)),
          fmt::format("{}", in_order[i]->offset));
  }
}

void check_version(Cursor& cursor) {
  const auto magic = cursor.bytes(kMagic.size(), "magic");
  const std::string_view found(reinterpret_cast<const char*>(magic.data()), magic.size());
  if (found != kMagic) cursor.refuse("magic", "\"GGUF\"", fmt::format("\"{}\"", printable(found)));
  const auto version = cursor.number<uint32_t>("version");
  if (version != 0 && (version & 0xFFFF) == 0)
    cursor.refuse("version", "a little-endian file", "a big-endian one");
  if (version < kOldestVersion || version > kNewestVersion)
    cursor.refuse("version", fmt::format("{} or {}", kOldestVersion, kNewestVersion),
                  fmt::format("{}", version));
}

}  // namespace

uint64_t GgufTensor::elements() const { return bytes.size() / format->bytes * format->values; }

GgufPart parse_gguf(std::span<const std::byte> bytes, const std::string& file) {
  Cursor cursor(bytes, file);
  check_version(cursor);
  const uint64_t tensors = cursor.count("number of tensors", kLeastTensorBytes);
  const uint64_t pairs = cursor.count("number of keys", kLeastPairBytes);
  GgufPart part{read_metadata(cursor, pairs), {}};
  const uint64_t alignment = read_alignment(part.metadata);
  std::vector<Placed> placed;
  for (uint64_t i = 0; i < tensors; ++i) placed.push_back(read_tensor(cursor, i));
  const uint64_t begin = (cursor.at() + alignment - 1) / alignment * alignment;
  const auto data = begin < bytes.size() ? bytes.subspan(static_cast<size_t>(begin)) : bytes.last(0);
  for (Placed& each : placed) place(each, data, alignment, cursor);
  check_distinct(placed, cursor);
  part.tensors.reserve(placed.size());
  for (Placed& each : placed) part.tensors.push_back(std::move(each.tensor));
  return part;
}

struct GgufFile::State {
  std::string path;
  std::vector<MappedFile> files;
  std::vector<GgufPart> parts;
  std::vector<GgufTensor> tensors;  // of all parts
  std::unordered_map<std::string_view, size_t> index;

  const GgufMetadata& add_part(const std::string& file);
  void add_other_parts();
  void collect();
};

const GgufMetadata& GgufFile::State::add_part(const std::string& file) {
  files.push_back(MappedFile::map(file));
  parts.push_back(parse_gguf(files.back().bytes(), file));
  return parts.back().metadata;
}

void GgufFile::State::add_other_parts() {
  const GgufMetadata& first = parts.front().metadata;
  const uint64_t count = first.optional_integer("split.count", 0, kMostParts).value_or(1);
  if (count < 2) return;
  if (const uint64_t number = first.integer("split.no", 0, count - 1); number != 0)
    first.refuse("split.no", "0: the first part", fmt::format("{}", number));
  const std::string suffix = gguf_part_suffix(1, count);
  if (path.size() < suffix.size() || path.substr(path.size() - suffix.size()) != suffix)
    throw FileError(fmt::format("{}: file name: expected to end in \"{}\" as the first of {} parts does",
                                path, suffix, count));
  const std::string stem = path.substr(0, path.size() - suffix.size());
  parts.reserve(static_cast<size_t>(count));
  for (uint64_t i = 1; i < count; ++i) {
    const GgufMetadata& part = add_part(stem + gguf_part_suffix(i + 1, count));
    part.integer("split.count", count, count);
    part.integer("split.no", i, i);
  }
}

void GgufFile::State::collect() {
  for (GgufPart& part : parts)
    for (GgufTensor& tensor : part.tensors) tensors.push_back(std::move(tensor));
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!index.emplace(tensors[i].name, i).second)
      throw FileError(
          fmt::format("{}: tensor \"{}\": expected a name that appears once, found it in two parts", path,
                      printable(tensors[i].name)));
  }
  const GgufMetadata& first = parts.front().metadata;
  if (parts.size() > 1 && first.has("split.tensors.count"))
    first.integer("split.tensors.count", tensors.size(), tensors.size());
}

GgufFile::GgufFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
GgufFile::~GgufFile() = default;
GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;

GgufFile GgufFile::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  state->add_part(path);
  state->add_other_parts();
  state->collect();
  return GgufFile(std::move(state));
}

const std::string& GgufFile::path() const { return state_->path; }
const GgufMetadata& GgufFile::metadata() const { return state_->parts.front().metadata; }
std::span<const GgufTensor> GgufFile::tensors() const { return state_->tensors; }

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = state_->index.find(name);
  return found == state_->index.end() ? nullptr : &state_->tensors[found->second];
}

void read_floats(const GgufTensor& tensor, uint64_t first, std::span<float> out) {
  const uint64_t elements = tensor.elements();
  if (first > elements || out.size() > elements - first)
    throw FileError(fmt::format("tensor {}: expected elements within {}, found {} from {}",
                                printable(tensor.name), elements, out.size(), first));
  decode_values(*tensor.format, tensor.bytes, first, out);
}

std::string gguf_part_suffix(uint64_t part, uint64_t parts) {
  return fmt::format("-{:05}-of-{:05}.gguf", part, parts);
}

}  // namespace tessera
