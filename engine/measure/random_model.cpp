#include "engine/measure/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "backends/cpu/cpu_features.h"
#include "engine/codec/matrix_codec.h"
#include "engine/models/families.h"
#include "engine/models/model_graph.h"
#include "engine/quantize/plan/row_blocks.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

struct Shape {
  const char* name;
  const char* family;
  uint64_t vocabulary, hidden, layers, query_heads, kv_heads, head_dim, ffn, context;
  double rope_theta;
  double rope_factor;  // of llama3 scaling over 8192 tokens; 0: none
  bool tied_head;
  double alibi = 0;
};

// From the configurations published with these models.
constexpr std::array kShapes = {
    Shape{"gpt2", "gpt2", 50257, 768, 12, 12, 12, 64, 3072, 1024, 1e4, 0, true},
    Shape{"opt-125m", "opt", 50272, 768, 12, 12, 12, 64, 3072, 2048, 1e4, 0, true},
    Shape{"smollm2-135m", "llama", 49152, 576, 30, 9, 3, 64, 1536, 8192, 1e5, 0, true},
    Shape{"smollm2-360m", "llama", 49152, 960, 32, 15, 5, 64, 2560, 8192, 1e5, 0, true},
    Shape{"qwen2.5-0.5b", "qwen2", 151936, 896, 24, 14, 2, 64, 4864, 32768, 1e6, 0, true},
    Shape{"tinyllama-1.1b", "llama", 32000, 2048, 22, 32, 4, 64, 5632, 2048, 1e4, 0, false},
    Shape{"llama-3.2-1b", "llama", 128256, 2048, 16, 32, 8, 64, 8192, 131072, 5e5, 32, true},
    Shape{"opt-1.3b", "opt", 50272, 2048, 24, 32, 32, 64, 8192, 2048, 1e4, 0, true},
    Shape{"qwen2.5-1.5b", "qwen2", 151936, 1536, 28, 12, 2, 128, 8960, 32768, 1e6, 0, true},
    Shape{"gpt2-xl", "gpt2", 50257, 1600, 48, 25, 25, 64, 6400, 1024, 1e4, 0, true},
    Shape{"smollm2-1.7b", "llama", 49152, 2048, 24, 32, 32, 64, 8192, 8192, 1.3e5, 0, true},
    Shape{"qwen2.5-3b", "qwen2", 151936, 2048, 36, 16, 2, 128, 11008, 32768, 1e6, 0, true},
    Shape{"llama-3.2-3b", "llama", 128256, 3072, 28, 24, 8, 128, 8192, 131072, 5e5, 32, true},
    Shape{"opt-6.7b", "opt", 50272, 4096, 32, 32, 32, 128, 16384, 2048, 1e4, 0, true},
    Shape{"llama-2-7b", "llama", 32000, 4096, 32, 32, 32, 128, 11008, 4096, 1e4, 0, false},
    Shape{"baichuan2-7b", "baichuan", 125696, 4096, 32, 32, 32, 128, 11008, 4096, 1e4, 0, false},
    Shape{"qwen2.5-7b", "qwen2", 152064, 3584, 28, 28, 4, 128, 18944, 32768, 1e6, 0, false},
    Shape{"qwen-7b", "qwen", 151936, 4096, 32, 32, 32, 128, 11008, 8192, 1e4, 0, false},
    Shape{"llama-3-8b", "llama", 128256, 4096, 32, 32, 8, 128, 14336, 8192, 5e5, 0, false},
    Shape{"llama-3.1-8b", "llama", 128256, 4096, 32, 32, 8, 128, 14336, 131072, 5e5, 8, false},
    Shape{"llama-2-13b", "llama", 32000, 5120, 40, 40, 40, 128, 13824, 4096, 1e4, 0, false},
    Shape{"baichuan2-13b", "baichuan", 125696, 5120, 40, 40, 40, 128, 13696, 4096, 1e4, 0, false, 8},
    Shape{"qwen-14b", "qwen", 152064, 5120, 40, 40, 40, 128, 13696, 2048, 1e4, 0, false},
    Shape{"qwen2.5-14b", "qwen2", 152064, 5120, 48, 40, 8, 128, 13824, 32768, 1e6, 0, false},
    Shape{"llama-3.1-70b", "llama", 128256, 8192, 80, 64, 8, 128, 28672, 131072, 5e5, 8, false},
};

// A folder of its own that is gone with the object.
class ScratchFolder {
 public:
  ScratchFolder() : path_((std::filesystem::temp_directory_path() / "tessera-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error(fmt::format("{}: cannot be made", path_));
  }
  ~ScratchFolder() {
    std::error_code none;
    std::filesystem::remove_all(path_, none);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void append_utf8(std::string& text, unsigned codepoint) {
  if (codepoint < 0x80) {
    text += static_cast<char>(codepoint);
  } else {
    text += static_cast<char>(0xC0 | (codepoint >> 6));
    text += static_cast<char>(0x80 | (codepoint & 0x3F));
  }
}

// Byte-level pieces for the 256 bytes, two special tokens, and names for all other ids: written as a
// checkpoint's tokenizer.json, so that the tokenizer's own importer lays it out.
TokenizerArrays synthetic_tokenizer(uint64_t vocabulary) {
  nlohmann::json pieces = nlohmann::json::object();  // looks names up fast, unlike the ordered kind
  unsigned substitute = 0x100;  // bytes that do not print are written as characters from here on
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string piece;
    append_utf8(piece, prints ? byte : substitute++);
    pieces[piece] = byte;
  }
  for (uint64_t id = 256; id + 2 < vocabulary; ++id) pieces[fmt::format("piece{}", id)] = id;
  const auto special = [](uint64_t id, const char* text) {
    return nlohmann::ordered_json{{"id", id},        {"content", text}, {"single_word", false},
                                  {"lstrip", false}, {"rstrip", false}, {"normalized", false},
                                  {"special", true}};
  };
  const nlohmann::ordered_json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", {special(vocabulary - 2, "<|begin|>"), special(vocabulary - 1, "<|end|>")}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", pieces}, {"merges", nlohmann::ordered_json::array()}}}};
  const nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                         {"bos_token", "<|begin|>"},
                                         {"eos_token", "<|end|>"},
                                         {"add_bos_token", true}};
  const ScratchFolder folder;
  for (const auto& [name, content] :
       {std::pair{"tokenizer.json", &tokenizer}, {"tokenizer_config.json", &config}}) {
    std::ofstream out(std::filesystem::path(folder.path()) / name, std::ios::binary);
    out << content->dump();
    if (!out.flush()) throw std::runtime_error(fmt::format("{}/{}: cannot be written", folder.path(), name));
  }
  return Tokenizer::from_folder(folder.path()).store();
}

// splitmix64, counted from a start of one's own: any block of a matrix can be drawn by any thread.
uint64_t mixed(uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

constexpr size_t kPoolPanels = 64;

// Panels of random weights, encoded once per scheme and width. A matrix is then filled by copying panels from
// random places in the pool: as fast as memory, in any scheme, padded as the encoder pads, and no two
// neighbouring panels alike.
struct PanelPool {
  std::vector<std::byte> panels;
  std::vector<float> scales;     // of 16 rows per panel, where the scheme has them
  std::vector<std::byte> zeros;  // likewise
  size_t panel_size = 0;
};

// Uniform weights of variance 1/columns, so that a normalized row comes out of a layer with a size near 1.
std::vector<float> random_rows(size_t rows, size_t columns, uint64_t seed) {
  const auto width = static_cast<float>(std::sqrt(12.0 / static_cast<double>(columns)));
  std::vector<float> values(rows * columns);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = (static_cast<float>(mixed(seed + i) >> 40) * 0x1p-24f - 0.5f) * width;
  }
  return values;
}

PanelPool make_pool(Scheme scheme, size_t columns, size_t threads, uint64_t seed) {
  constexpr size_t rows = kPoolPanels * tile::kPanelRows;
  const std::array<uint64_t, 2> shape = {rows, columns};
  std::vector<std::byte> matrix(static_cast<size_t>(stored_bytes(scheme, shape).value()));
  write_default_table(scheme, rows, columns, matrix);
  run_row_blocks(kPoolPanels, threads, [&](size_t block, size_t) {
    encode_rows(scheme, rows, columns, block * tile::kPanelRows, tile::kPanelRows,
                random_rows(tile::kPanelRows, columns, mixed(seed + block)), matrix);
  });
  PanelPool pool;
  pool.panel_size = panel_bytes(scheme, columns);
  pool.panels.assign(matrix.begin(),
                     matrix.begin() + static_cast<std::ptrdiff_t>(kPoolPanels * pool.panel_size));
  const RowTail tail = row_tail(scheme, rows, columns);
  if (has_row_scales(scheme)) {
    pool.scales.resize(rows);
    std::memcpy(pool.scales.data(), matrix.data() + tail.scales, rows * sizeof(float));
  }
  if (scheme_facts(scheme).row_zeros) {
    pool.zeros.assign(matrix.begin() + static_cast<std::ptrdiff_t>(tail.zeros),
                      matrix.begin() + static_cast<std::ptrdiff_t>(tail.zeros + rows));
  }
  return pool;
}

void fill_matrix(const PanelPool& pool, Scheme scheme, size_t rows, size_t columns, size_t threads,
                 uint64_t seed, std::span<std::byte> out) {
  const size_t panels = rows / tile::kPanelRows;  // whole ones
  const size_t per_block = std::max<size_t>((size_t{1} << 20) / pool.panel_size, 1);
  const RowTail tail = row_tail(scheme, rows, columns);
  write_default_table(scheme, rows, columns, out);
  run_row_blocks((panels + per_block - 1) / per_block, threads, [&](size_t block, size_t) {
    for (size_t panel = block * per_block; panel < std::min(panels, (block + 1) * per_block); ++panel) {
      const size_t from = mixed(seed + panel) % kPoolPanels;
      std::memcpy(out.data() + panel * pool.panel_size, pool.panels.data() + from * pool.panel_size,
                  pool.panel_size);
      if (!pool.scales.empty()) {
        std::memcpy(out.data() + tail.scales + panel * tile::kPanelRows * sizeof(float),
                    pool.scales.data() + from * tile::kPanelRows, tile::kPanelRows * sizeof(float));
      }
      if (!pool.zeros.empty()) {
        std::memcpy(out.data() + tail.zeros + panel * tile::kPanelRows,
                    pool.zeros.data() + from * tile::kPanelRows, tile::kPanelRows);
      }
    }
  });
  if (const size_t rest = rows % tile::kPanelRows; rest != 0) {
    encode_rows(scheme, rows, columns, panels * tile::kPanelRows, rest, random_rows(rest, columns, seed),
                out);
  }
}

void fill_vector(const ExpectedTensor& tensor, std::span<std::byte> out) {
  const bool norm = role_row(tensor.role).kind == RoleKind::norm;
  const float value = norm ? 1.0f : 0.0f;  // norms pass through, biases add nothing
  for (size_t at = 0; at + sizeof(float) <= out.size(); at += sizeof(float)) {
    std::memcpy(out.data() + at, &value, sizeof(float));
  }
}

bool is_head_or_embedding(const ExpectedTensor& tensor) {
  const RoleKind kind = role_row(tensor.role).kind;
  return kind == RoleKind::head || kind == RoleKind::embedding;
}

TessImage build_image(const std::string& name, const Hyperparameters& shape, Scheme scheme, size_t threads,
                      uint64_t seed) {
  // As quantizing does it: the embedding and the head of a model of codes are w8a8.
  const Scheme head = scheme_facts(scheme).stores_codes() ? Scheme::w8a8 : scheme;
  const TokenizerArrays arrays = synthetic_tokenizer(shape.vocabulary);
  ModelHeader header;
  header.name = name;
  header.hyperparameters = shape;
  header.quantization.scheme = scheme_name(scheme);
  header.quantization.head_scheme = scheme_name(head);
  header.quantization.kv_bits = 8;
  header.quantization.tool_version = "random weights";
  header.quantization.command =
      fmt::format("tessera --bench --shape {} --scheme {}", name, scheme_name(scheme));
  header.tokenizer = arrays.settings;

  const std::vector<ExpectedTensor> expected = expected_tensors(shape);
  std::vector<PlannedTensor> plan;
  uint64_t bytes = 0;
  for (const ExpectedTensor& tensor : expected) {
    const Scheme stored = tensor.shape.size() == 1       ? Scheme::f32
                          : is_head_or_embedding(tensor) ? head
                                                         : scheme;
    plan.push_back({tensor.name, stored, tensor.shape});
    bytes += stored_bytes(stored, tensor.shape).value_or(0);
  }
  if (const size_t available = cpu::available_memory(); available != 0 && bytes > available) {
    throw std::runtime_error(
        fmt::format("not enough memory for random weights: {:.2f} GB needed, {:.2f} GB available",
                    static_cast<double>(bytes) / 1e9, static_cast<double>(available) / 1e9));
  }
  std::vector<std::span<const std::byte>> tokenizer_bytes;
  for (const auto& [tensor, values] : arrays.byte_tensors) {
    if (values.empty()) continue;
    plan.push_back({tensor, Scheme::u8, {values.size()}});
    tokenizer_bytes.push_back(std::as_bytes(std::span(values)));
  }
  for (const auto& [tensor, values] : arrays.word_tensors) {
    if (values.empty()) continue;
    plan.push_back({tensor, Scheme::u32, {values.size()}});
    tokenizer_bytes.push_back(std::as_bytes(std::span(values)));
  }

  TessImage image(name, header, plan);
  std::map<std::pair<Scheme, size_t>, PanelPool> pools;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].shape.size() == 1) {
      fill_vector(expected[i], image.tensor(i));
      continue;
    }
    const auto rows = static_cast<size_t>(expected[i].shape[0]);
    const auto columns = static_cast<size_t>(expected[i].shape[1]);
    const Scheme stored = plan[i].scheme;
    auto pool = pools.find({stored, columns});
    if (pool == pools.end()) {
      pool =
          pools
              .emplace(std::pair{stored, columns}, make_pool(stored, columns, threads, mixed(seed + columns)))
              .first;
    }
    fill_matrix(pool->second, stored, rows, columns, threads, mixed(seed ^ (i + 1)), image.tensor(i));
  }
  for (size_t i = 0; i < tokenizer_bytes.size(); ++i) {
    const std::span<std::byte> out = image.tensor(expected.size() + i);
    std::copy(tokenizer_bytes[i].begin(), tokenizer_bytes[i].end(), out.begin());
  }
  image.finish();
  return image;
}

}  // namespace

std::vector<std::string> random_model_shapes() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

Hyperparameters random_model_shape(const std::string& name) {
  const auto found =
      std::find_if(kShapes.begin(), kShapes.end(), [&](const Shape& shape) { return shape.name == name; });
  if (found == kShapes.end()) {
    throw std::invalid_argument(
        fmt::format("expected {}, found '{}'", fmt::join(random_model_shapes(), ", "), name));
  }
  Hyperparameters h;
  h.family = found->family;
  h.vocabulary = found->vocabulary;
  h.hidden = found->hidden;
  h.layers = found->layers;
  h.query_heads = found->query_heads;
  h.kv_heads = found->kv_heads;
  h.head_dim = found->head_dim;
  h.ffn = found->ffn;
  h.context = found->context;
  h.rope_theta = found->rope_theta;
  if (found->rope_factor > 0) h.rope_scaling = {RopeScalingKind::llama3, found->rope_factor, 1.0, 4.0, 8192};
  h.tied_head = found->tied_head;
  h.qkv_bias = find_family(h.family, name).qkv_bias == BiasRule::always;
  h.output_bias = find_family(h.family, name).output_bias == BiasRule::always;
  h.alibi = found->alibi;
  return h;
}

RandomModel::RandomModel(const std::string& shape, Scheme scheme, size_t threads, uint64_t seed)
    : RandomModel(shape, random_model_shape(shape), scheme, threads, seed) {}

RandomModel::RandomModel(const std::string& name, const Hyperparameters& shape, Scheme scheme, size_t threads,
                         uint64_t seed)
    : image_(build_image(name, shape, scheme, threads, seed)) {}

}  // namespace tessera
