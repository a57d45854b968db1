#include "gguf-like-format/tess/tess_layout.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "gguf-like-format/tensor_roles.h"
#include "gguf-like-format/tess/tess_file.h"

namespace tessera {

namespace {

constexpr uint64_t kMostFileBytes = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

std::string shape_text(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (const uint64_t dimension : shape) text += fmt::format("{}{}", text.size() > 1 ? ", " : "", dimension);
  return text + "]";
}

// Rounds up to kTessAlignment; nothing when the result leaves 63 bits.
std::optional<uint64_t> aligned(uint64_t offset) {
  if (offset > kMostFileBytes - kTessAlignment) return std::nullopt;
  return (offset + kTessAlignment - 1) / kTessAlignment * kTessAlignment;
}

[[noreturn]] void refuse(const std::string& file, std::string_view tensor, std::string_view field,
                         std::string_view expected, std::string_view found) {
  throw FileError(fmt::format("{}: tensor {}.{}: expected {}, found {}", file, printable(tensor), field,
                              expected, found));
}

// The role of "layers.12.q"; the layer must be a plain number below the layer count.
const RoleRow* role_in_layer(const TensorRecord& record, const Hyperparameters& h, const std::string& file) {
  const std::string_view rest = std::string_view(record.name).substr(std::string_view("layers.").size());
  const size_t dot = rest.find('.');
  uint64_t layer = 0;
  const char* const end = rest.data() + (dot == std::string_view::npos ? rest.size() : dot);
  const auto [stop, error] = std::from_chars(rest.data(), end, layer);
  const bool plain = rest.front() != '0' || end == rest.data() + 1;  // no leading zeros
  if (dot == std::string_view::npos || error != std::errc() || stop != end || !plain || layer >= h.layers)
    refuse(file, record.name, "name", fmt::format("layers.N.KIND with N below layers ({})", h.layers),
           printable(record.name));
  return find_role(rest.substr(dot + 1), true);
}

void check_tokenizer_tensor(const TensorRecord& record, const Hyperparameters& h, const std::string& file) {
  if (record.shape.size() != 1) refuse(file, record.name, "shape", "one dimension", shape_text(record.shape));
  // The token table has one boundary more than tokens; every id must have a row in the embedding.
  if (record.name == "tokenizer.offsets" && record.shape[0] - 1 > h.vocabulary)
    refuse(file, record.name, "shape", fmt::format("at most vocabulary + 1 ({}) offsets", h.vocabulary + 1),
           shape_text(record.shape));
}

}  // namespace

uint64_t place_tensors(std::span<TensorRecord> tensors, uint64_t header_end, const std::string& file) {
  std::optional<uint64_t> end = aligned(header_end);
  for (TensorRecord& record : tensors) {
    const std::optional<uint64_t> bytes = stored_bytes(record.scheme, record.shape);
    if (!bytes)
      refuse(file, record.name, "shape",
             fmt::format("a shape that scheme {} can store in fewer than 2^63 bytes",
                         scheme_name(record.scheme)),
             shape_text(record.shape));
    record.bytes = *bytes;
    if (end) {
      record.offset = *end;
      end = *bytes > kMostFileBytes - *end ? std::nullopt : aligned(*end + *bytes);
    }
    if (!end) refuse(file, record.name, "bytes", "tensors of fewer than 2^63 bytes in all", "more");
  }
  if (!end) throw FileError(fmt::format("{}: file: expected fewer than 2^63 bytes", file));
  return *end;
}

void check_placement(std::span<const TensorRecord> tensors, uint64_t header_end, uint64_t file_bytes,
                     const std::string& file) {
  std::optional<uint64_t> expected = aligned(header_end);
  for (const TensorRecord& record : tensors) {
    if (record.offset % kTessAlignment != 0)
      refuse(file, record.name, "offset", fmt::format("a multiple of {}", kTessAlignment),
             fmt::format("{}", record.offset));
    if (record.offset > file_bytes || record.bytes > file_bytes - record.offset)
      refuse(file, record.name, "offset",
             fmt::format("{} bytes that end within the file's {}", record.bytes, file_bytes),
             fmt::format("offset {}", record.offset));
    if (!expected || record.offset < *expected)
      refuse(file, record.name, "offset",
             expected ? fmt::format("{}: an earlier offset overlaps the header or another tensor", *expected)
                      : std::string("no tensor after the end"),
             fmt::format("{}", record.offset));
    if (record.offset > *expected)
      refuse(file, record.name, "offset", fmt::format("{}: no gap is allowed", *expected),
             fmt::format("{}", record.offset));
    expected = aligned(record.offset + record.bytes);
  }
  if (!expected || *expected != file_bytes)
    throw FileError(
        fmt::format("{}: file bytes: expected the last tensor and its padding to end at {}, found {}", file,
                    file_bytes, expected ? fmt::format("{}", *expected) : "more"));
}

void check_tensor_shapes(std::span<const TensorRecord> tensors, const Hyperparameters& hyperparameters,
                         const std::string& file) {
  std::unordered_set<std::string_view> names;
  for (const TensorRecord& record : tensors) {
    if (!names.insert(record.name).second)
      throw FileError(fmt::format("{}: tensor {}: name appears twice", file, printable(record.name)));
    if (record.name.starts_with("tokenizer.")) {
      check_tokenizer_tensor(record, hyperparameters, file);
      continue;
    }
    const RoleRow* role = record.name.starts_with("layers.") && record.name.size() > 7
                              ? role_in_layer(record, hyperparameters, file)
                              : find_role(record.name, false);
    if (role == nullptr) continue;
    if (!role->allowed(hyperparameters))
      refuse(file, record.name, "name", "no such tensor: the model's header says that it has no such bias",
             "one");
    const std::vector<uint64_t> shape = role->shape(hyperparameters);
    if (record.shape != shape)
      refuse(file, record.name, "shape", fmt::format("{} = {}", role->shape_text, shape_text(shape)),
             shape_text(record.shape));
    if (record.shape.size() == 1 && record.scheme != role->vector_scheme())
      refuse(file, record.name, "scheme", scheme_name(role->vector_scheme()), scheme_name(record.scheme));
  }
}

}  // namespace tessera
