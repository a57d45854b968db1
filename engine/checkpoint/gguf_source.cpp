#include "engine/checkpoint/gguf_source.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "engine/checkpoint/gguf_codes.h"
#include "engine/checkpoint/gguf_config.h"
#include "engine/models/families.h"
#include "gguf-like-format/gguf/gguf_file.h"

namespace tessera {

namespace {

// Special tokens that end a turn in every model that has them, whether the file's ids name them or not.
constexpr std::array<std::string_view, 7> kTurnEnds{
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"};

// The float type that holds all values of a tensor.
Scheme precision_of(const GgufBlockFormat& format) {
  if (format.name == "F16") return Scheme::f16;
  return format.name == "BF16" ? Scheme::bf16 : Scheme::f32;
}

// Of a weight, without the fraction that levels take; 0 for floats.
unsigned code_bits_of(const GgufBlockFormat& format) {
  return format.values == 1 ? 0 : static_cast<unsigned>(8 * format.bytes / format.values);
}

// q, k and v, and their biases, may be fused to one tensor, in this order.
struct FusedPart {
  Role role;
  std::string_view fused;
  size_t place;
};
constexpr std::array kFusedParts = {
    FusedPart{Role::q, "blk.{}.attn_qkv.weight", 0},    FusedPart{Role::k, "blk.{}.attn_qkv.weight", 1},
    FusedPart{Role::v, "blk.{}.attn_qkv.weight", 2},    FusedPart{Role::q_bias, "blk.{}.attn_qkv.bias", 0},
    FusedPart{Role::k_bias, "blk.{}.attn_qkv.bias", 1}, FusedPart{Role::v_bias, "blk.{}.attn_qkv.bias", 2},
};

bool is_rotated(Role role) {
  return role == Role::q || role == Role::k || role == Role::q_bias || role == Role::k_bias;
}

class GgufSource : public CheckpointSource {
 public:
  explicit GgufSource(const std::string& path)
      : file_(GgufFile::open(path)),
        header_(read_gguf_header(file_)),
        tokenizer_(Tokenizer::from_gguf(file_.metadata(), &notes_)) {
    const uint64_t vocabulary = header_.hyperparameters.vocabulary;
    if (tokenizer_.vocabulary() > vocabulary)
      file_.metadata().refuse("tokenizer.ggml.tokens",
                              fmt::format("at most the {} rows of token_embd.weight", vocabulary),
                              fmt::format("{}", tokenizer_.vocabulary()));
    std::vector<uint32_t>& stops = header_.chat.stop_tokens;
    for (const std::string_view text : kTurnEnds) {
      const auto id = tokenizer_.find(text);
      if (id && tokenizer_.is_special(*id) && std::find(stops.begin(), stops.end(), *id) == stops.end())
        stops.push_back(*id);
    }
    tensors_.reserve(file_.tensors().size());
    for (const GgufTensor& tensor : file_.tensors()) {
      if (tensor.name == kRopeDivisors) continue;
      stored_.push_back(&tensor);
      tensors_.push_back({tensor.name, tensor.shape, tensor.format->name, precision_of(*tensor.format),
                          code_bits_of(*tensor.format)});
    }
  }

  const std::string& path() const override { return file_.path(); }
  const ModelHeader& header() const override { return header_; }
  std::span<const std::string> notes() const override { return notes_; }
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  std::span<const SourceTensor> tensors() const override { return tensors_; }

  TensorSource source_of(const ExpectedTensor& tensor) const override {
    const Hyperparameters& h = header_.hyperparameters;
    const GgufArchitecture& architecture = find_family(h.family, path()).gguf;
    TensorSource source;
    source.name = fmt::format(fmt::runtime(name_of(architecture.names, tensor.role)), tensor.layer);
    source.multiplier = tensor.source.multiplier;
    source.unit_rows = tensor.source.unit_rows;  // those that have length 1 already do not change
    source.stored_head = tensor.source.stored_head;
    source.padded_head = tensor.source.padded_head;
    source.in_columns = tensor.source.in_columns;
    const uint64_t head = h.model_head_dim();
    if (architecture.neighbouring_pairs && is_rotated(tensor.role))
      source.head_rows = source.rotated_rows = head;
    const auto part = std::find_if(kFusedParts.begin(), kFusedParts.end(),
                                   [&](const FusedPart& each) { return each.role == tensor.role; });
    if (part == kFusedParts.end() || file_.find(source.name) != nullptr) return source;
    const std::string fused = fmt::format(fmt::runtime(part->fused), tensor.layer);
    if (file_.find(fused) == nullptr) return source;
    source.name = fused;
    const std::array<uint64_t, 3> rows{h.query_heads * head, h.kv_heads * head, h.kv_heads * head};
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i < part->place) source.first_row += rows[i];
      source.all_rows += rows[i];
    }
    return source;
  }

  void read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const override {
    read_floats(stored(tensor), first, out);
  }
  std::optional<PackedFormat> packed_format(const SourceTensor& tensor) const override {
    return packed_format_of(stored(tensor));
  }
  PackedRows read_packed(const SourceTensor& tensor, uint64_t first_row, uint64_t rows) const override {
    return read_codes(stored(tensor), first_row, rows, GgufCodes::with_levels);
  }
  PackedRows read_levels(const SourceTensor& tensor, uint64_t first_row, uint64_t rows) const override {
    return read_codes(stored(tensor), first_row, rows, GgufCodes::levels_only);
  }
  uint64_t hash(const SourceTensor& tensor, uint64_t seed) const override {
    const std::span<const std::byte> bytes = stored(tensor).bytes;
    return XXH64(bytes.data(), bytes.size(), seed);
  }

 private:
  const GgufTensor& stored(const SourceTensor& tensor) const {
    return *stored_[static_cast<size_t>(&tensor - tensors_.data())];
  }

  GgufFile file_;
  ModelHeader header_;
  std::vector<std::string> notes_;
  Tokenizer tokenizer_;
  std::vector<SourceTensor> tensors_;
  std::vector<const GgufTensor*> stored_;  // the same tensors in the file
};

}  // namespace

bool is_gguf_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  return std::string_view(magic.data(), magic.size()) == "GGUF" ||
         std::filesystem::path(path).extension() == ".gguf";
}

std::vector<std::string> gguf_files(const std::string& path) {
  std::vector<std::string> files{path};
  const size_t of = path.rfind("-of-");
  uint64_t parts = 0;
  if (of == std::string::npos ||
      std::from_chars(path.data() + of + 4, path.data() + path.size(), parts).ec != std::errc{})
    return files;
  const std::string suffix = gguf_part_suffix(1, parts);
  if (!path.ends_with(suffix)) return files;
  const std::string stem = path.substr(0, path.size() - suffix.size());
  for (uint64_t part = 2; part <= parts; ++part) {
    const std::string file = stem + gguf_part_suffix(part, parts);
    std::error_code none;
    if (!std::filesystem::exists(file, none)) break;  // reading the model will say which one is missing
    files.push_back(file);
  }
  return files;
}

std::unique_ptr<CheckpointSource> open_gguf_file(const std::string& path) {
  return std::make_unique<GgufSource>(path);
}

}  // namespace tessera
