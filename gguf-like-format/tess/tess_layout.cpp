#include "gguf-like-format/tess/tess_layout.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <vector>

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

// What a name of the format asks of its tensor; no shape for names that the format gives no meaning to.
struct Expectation {
  std::vector<uint64_t> shape;
  const char* reason = "";
  bool present = true;  // false when the hyperparameters say that there is no such tensor
};

Expectation whole_model_expectation(std::string_view name, const Hyperparameters& h) {
  if (name == "token_embedding" || name == "output_head")
    return {{h.vocabulary, h.hidden}, "[vocabulary, hidden]"};
  if (name == "output_norm") return {{h.hidden}, "[hidden]"};
  return {};
}

Expectation layer_expectation(std::string_view kind, const Hyperparameters& h) {
  const uint64_t query_rows = h.query_heads * h.head_dim;
  const uint64_t kv_rows = h.kv_heads * h.head_dim;
  if (kind == "attention_norm" || kind == "ffn_norm") return {{h.hidden}, "[hidden]"};
  if (kind == "q") return {{query_rows, h.hidden}, "[query_heads * head_dim, hidden]"};
  if (kind == "k" || kind == "v") return {{kv_rows, h.hidden}, "[kv_heads * head_dim, hidden]"};
  if (kind == "o") return {{h.hidden, query_rows}, "[hidden, query_heads * head_dim]"};
  if (kind == "q_bias") return {{query_rows}, "[query_heads * head_dim]", h.qkv_bias};
  if (kind == "k_bias" || kind == "v_bias") return {{kv_rows}, "[kv_heads * head_dim]", h.qkv_bias};
  if (kind == "o_bias") return {{h.hidden}, "[hidden]", h.output_bias};
  if (kind == "gate" || kind == "up") return {{h.ffn, h.hidden}, "[ffn, hidden]"};
  if (kind == "down") return {{h.hidden, h.ffn}, "[hidden, ffn]"};
  return {};
}

// Splits "layers.12.q" into its layer and "q"; the layer must be a plain number below the layer count.
Expectation layer_tensor_expectation(const TensorRecord& record, const Hyperparameters& h,
                                     const std::string& file) {
  const std::string_view rest = std::string_view(record.name).substr(std::string_view("layers.").size());
  const size_t dot = rest.find('.');
  uint64_t layer = 0;
  const char* const end = rest.data() + (dot == std::string_view::npos ? rest.size() : dot);
  const auto [stop, error] = std::from_chars(rest.data(), end, layer);
  const bool plain = rest.front() != '0' || end == rest.data() + 1;  // no leading zeros
  if (dot == std::string_view::npos || error != std::errc() || stop != end || !plain || layer >= h.layers)
    refuse(file, record.name, "name", fmt::format("layers.N.KIND with N below layers ({})", h.layers),
           printable(record.name));
  return layer_expectation(rest.substr(dot + 1), h);
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
    const Expectation expectation = record.name.starts_with("layers.") && record.name.size() > 7
                                        ? layer_tensor_expectation(record, hyperparameters, file)
                                        : whole_model_expectation(record.name, hyperparameters);
    if (expectation.shape.empty()) continue;
    if (!expectation.present)
      refuse(file, record.name, "name", "no such tensor: the model's header says that it has no such bias",
             "one");
    if (record.shape != expectation.shape)
      refuse(file, record.name, "shape",
             fmt::format("{} = {}", expectation.reason, shape_text(expectation.shape)),
             shape_text(record.shape));
    if (record.shape.size() == 1 && record.scheme != Scheme::f32)
      refuse(file, record.name, "scheme", "f32", scheme_name(record.scheme));
  }
}

}  // namespace tessera
