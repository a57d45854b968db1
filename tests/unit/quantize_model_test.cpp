// Checkpoint folder in, .tess file out: random tiny models written here, read back tensor by tensor.
#include "engine/quantize/quantize_model.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/models/model_graph.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tess/tess_file.h"

using namespace tessera;
namespace fs = std::filesystem;

namespace {

std::mt19937& random_source() {
  static std::mt19937 generator = [] {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    return std::mt19937(seed);
  }();
  return generator;
}

// A folder of its own for each test, removed at the end.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("tessera-quantize-" + std::to_string(random_source()()))) {
    fs::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string file(const std::string& name) const { return (path_ / name).string(); }
  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

std::vector<char> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct WrittenTensor {
  std::string type;  // "F32", "F16", "BF16" or "I32"
  std::vector<uint64_t> shape;
  std::vector<float> values;

  std::string bytes() const {
    std::string out;
    const auto append = [&](const auto& value) {
      out.append(reinterpret_cast<const char*>(&value), sizeof(value));
    };
    for (const float value : values) {
      if (type == "F16") {
        append(f32_to_f16(value));
      } else if (type == "BF16") {
        append(f32_to_bf16(value));
      } else {
        append(value);
      }
    }
    return out;
  }
};

float rounded(const std::string& type, float value) {
  if (type == "F16") return f16_to_f32(f32_to_f16(value));
  return type == "BF16" ? bf16_to_f32(f32_to_bf16(value)) : value;
}

// A random model of odd sizes: 2 layers, 3 query heads and 1 key/value head of 24, ffn 172.
struct SourceModel {
  static constexpr uint64_t kHidden = 72, kKeys = 24, kFfn = 172;
  uint64_t vocabulary = 270;  // the tokenizer has 259 entries: a padded vocabulary
  bool tied = false;
  std::string type = "BF16";
  nlohmann::json config;
  std::map<std::string, WrittenTensor> tensors;

  SourceModel(std::string type_name, bool tied_head, uint64_t vocabulary_size = 270)
      : vocabulary(vocabulary_size), tied(tied_head), type(std::move(type_name)) {
    config = {{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"hidden_size", kHidden},
              {"intermediate_size", kFfn},
              {"num_hidden_layers", 2},
              {"num_attention_heads", 3},
              {"num_key_value_heads", 1},
              {"vocab_size", vocabulary},
              {"max_position_embeddings", 128},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 10000.0},
              {"hidden_act", "silu"},
              {"tie_word_embeddings", tied},
              {"bos_token_id", 1},
              {"eos_token_id", 2}};
    add("model.embed_tokens.weight", {vocabulary, kHidden});
    add("model.norm.weight", {kHidden});
    if (!tied) add("lm_head.weight", {vocabulary, kHidden});
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      add(layer + "self_attn.q_proj.weight", {kHidden, kHidden});
      add(layer + "self_attn.k_proj.weight", {kKeys, kHidden});
      add(layer + "self_attn.v_proj.weight", {kKeys, kHidden});
      add(layer + "self_attn.o_proj.weight", {kHidden, kHidden});
      add(layer + "mlp.gate_proj.weight", {kFfn, kHidden});
      add(layer + "mlp.up_proj.weight", {kFfn, kHidden});
      add(layer + "mlp.down_proj.weight", {kHidden, kFfn});
      add(layer + "input_layernorm.weight", {kHidden});
      add(layer + "post_attention_layernorm.weight", {kHidden});
    }
  }

  void add(const std::string& name, std::vector<uint64_t> shape) {
    std::normal_distribution<float> normal(0.0f, 0.05f);
    uint64_t count = 1;
    for (const uint64_t extent : shape) count *= extent;
    WrittenTensor tensor{type, std::move(shape), std::vector<float>(count)};
    for (float& value : tensor.values) value = rounded(type, normal(random_source()));
    tensors[name] = std::move(tensor);
  }

  // Names of the shard's tensors in order; empty shards are not written.
  void write_shard(const std::string& path, const std::vector<std::string>& names) const {
    nlohmann::json header = nlohmann::json::object();
    std::string data;
    for (const std::string& name : names) {
      const WrittenTensor& tensor = tensors.at(name);
      const std::string bytes = tensor.bytes();
      header[name] = {{"dtype", tensor.type},
                      {"shape", tensor.shape},
                      {"data_offsets", {data.size(), data.size() + bytes.size()}}};
      data += bytes;
    }
    const std::string text = header.dump();
    const uint64_t size = text.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), 8);
    file << text << data;
    REQUIRE(file.good());
  }

  std::string write(const Folder& folder, size_t shards = 1) const {
    const std::string path = folder.file("source");
    fs::create_directories(path);
    std::ofstream(path + "/config.json") << config.dump(1);
    const std::string tokenizer = std::string(TESSERA_SOURCE_DIR) + "/tests/golden/models/qwen2-biased-f16/";
    for (const std::string name : {"tokenizer.json", "tokenizer_config.json"})
      fs::copy_file(tokenizer + name, path + "/" + name, fs::copy_options::overwrite_existing);
    std::vector<std::vector<std::string>> names(shards);
    size_t next = 0;
    for (const auto& [name, tensor] : tensors) names[next++ % shards].push_back(name);
    if (shards == 1) {
      write_shard(path + "/model.safetensors", names[0]);
      return path;
    }
    nlohmann::json index;
    for (size_t shard = 0; shard < shards; ++shard) {
      const std::string file = "model-0000" + std::to_string(shard + 1) + ".safetensors";
      write_shard(path + "/" + file, names[shard]);
      for (const std::string& name : names[shard]) index["weight_map"][name] = file;
    }
    std::ofstream(path + "/model.safetensors.index.json") << index.dump(1);
    return path;
  }
};

QuantizeOptions options_for(const std::string& source, const std::string& target, Scheme scheme) {
  QuantizeOptions options;
  options.source = source;
  options.target = target;
  options.scheme = scheme;
  options.threads = 2;
  options.command = "tessera quantize it";
  return options;
}

double allowed_relative_error(Scheme scheme) {
  if (const auto format = table_format(scheme))
    return format->bits == 4 ? 0.14 : format->bits == 3 ? 0.3 : 0.8;
  if (scheme_facts(scheme).group_scales()) return scheme_facts(scheme).bits == 8 ? 0.012 : 0.14;
  switch (scheme) {
    case Scheme::w4a8_g128:
    case Scheme::w4a8:
      return 0.14;
    case Scheme::w8a8:
      return 0.012;
    case Scheme::f16:
      return 0x1p-11;
    case Scheme::bf16:
      return 0x1p-8;
    default:
      return 0;
  }
}

struct Sums {
  double error = 0, power = 0;
  double relative() const { return power > 0 ? std::sqrt(error / power) : 0; }
};

// Compares every tensor of the file with its source; head is the scheme of the head and the embedding.
void check_file(const SourceModel& model, const TessFile& file, Scheme scheme, Scheme head,
                const std::vector<QuantizeSummary>& summary) {
  std::map<std::string, Sums> sums_by_kind;
  std::map<std::string, uint64_t> weights_by_kind;
  for (const ExpectedTensor& expected : expected_tensors(file.header().hyperparameters)) {
    CAPTURE(expected.name);
    const WrittenTensor& source = model.tensors.at(expected.source.name);
    const StoredTensor& stored = file.require(expected.name);
    REQUIRE(stored.shape == source.shape);
    weights_by_kind[std::string(role_label(expected.role))] += source.values.size();
    if (source.shape.size() == 1) {
      CHECK(stored.scheme == Scheme::f32);
      REQUIRE(stored.bytes.size() == 4 * source.values.size());
      CHECK(std::memcmp(stored.bytes.data(), source.values.data(), stored.bytes.size()) == 0);
      continue;
    }
    const bool is_head = expected.role == Role::output_head || expected.role == Role::token_embedding;
    CHECK(stored.scheme == (is_head ? head : scheme));
    std::vector<std::byte> whole(stored.bytes.size());
    write_default_table(stored.scheme, stored.rows(), stored.columns(), whole);
    encode_rows(stored.scheme, stored.rows(), stored.columns(), 0, stored.rows(), source.values, whole);
    CHECK(std::equal(whole.begin(), whole.end(), stored.bytes.begin()));
    Sums sums;
    std::vector<double> decoded(stored.columns());
    for (size_t row = 0; row < stored.rows(); ++row) {
      decode_row(stored.scheme, stored.rows(), stored.columns(), stored.bytes, row, decoded);
      for (size_t column = 0; column < decoded.size(); ++column) {
        const double value = source.values[row * decoded.size() + column];
        sums.error += (value - decoded[column]) * (value - decoded[column]);
        sums.power += value * value;
      }
    }
    CHECK(sums.relative() <= allowed_relative_error(stored.scheme));
    sums_by_kind[std::string(role_label(expected.role))].error += sums.error;
    sums_by_kind[std::string(role_label(expected.role))].power += sums.power;
  }
  CHECK(file.verify().empty());

  CHECK(summary.size() == weights_by_kind.size());
  for (const QuantizeSummary& line : summary) {
    CAPTURE(line.kind);
    CHECK(line.weights == weights_by_kind[line.kind]);
    CHECK(line.relative_error == doctest::Approx(sums_by_kind[line.kind].relative()).epsilon(1e-9));
  }
}

// The error line of a conversion that must fail; checks that the target's folder stays empty.
std::string refusal(const SourceModel& model, Scheme scheme = Scheme::w4a8_g128) {
  const Folder folder;
  const std::string source = model.write(folder);
  const Folder target;
  std::string line;
  try {
    quantize_model(options_for(source, target.file("model.tess"), scheme));
  } catch (const FileError& error) {
    line = error.what();
  }
  CHECK(target.entries() == 0);
  CHECK_MESSAGE(!line.empty(), "the checkpoint was accepted");
  CHECK(line.find('\n') == std::string::npos);
  return line;
}

bool holds(const std::string& line, const std::string& part) {
  const bool found = line.find(part) != std::string::npos;
  CHECK_MESSAGE(found, "\"" << line << "\" does not say \"" << part << "\"");
  return found;
}

}  // namespace

TEST_CASE("every scheme, every checkpoint type, one file or shards, tied or not") {
  for (const std::string type : {"F32", "F16", "BF16"}) {
    for (const Scheme scheme : {Scheme::w4a8_g128, Scheme::w4a8, Scheme::w8a8, Scheme::f16, Scheme::bf16,
                                Scheme::f32, parse_scheme("lut4-g64").value(),
                                parse_scheme("lut3-g32-a8").value(), parse_scheme("lut2-g256").value(),
                                parse_scheme("int4-g128").value(), parse_scheme("int8-g64-a8").value(),
                                parse_scheme("int4m-g32").value(), parse_scheme("int4k-g32").value()}) {
      for (const bool tied : {false, true}) {
        const std::string name(scheme_name(scheme));
        CAPTURE(type);
        CAPTURE(name);
        CAPTURE(tied);
        const SourceModel model(type, tied);
        const Folder folder;
        const std::string source = model.write(folder, tied ? 1 : 3);
        const std::string target = folder.file("model.tess");
        const auto summary = quantize_model(options_for(source, target, scheme));
        CHECK(folder.entries() == 2);  // the source and the target, no temporary file
        const auto file = TessFile::open(target, true);
        const Scheme head = scheme_facts(scheme).stores_codes() ? Scheme::w8a8 : scheme;
        check_file(model, *file, scheme, head, summary);
        CHECK(file->header().quantization.scheme == name);
        CHECK(file->header().quantization.head_scheme == scheme_name(head));
        CHECK(file->header().quantization.kv_bits == 8);
        CHECK(file->header().quantization.command == "tessera quantize it");
        CHECK(!file->header().quantization.tool_version.empty());
        CHECK(file->header().quantization.calibration_hash.empty());
      }
    }
  }
}

TEST_CASE("a kept head has the checkpoint's type") {
  for (const auto& [type, head] :
       {std::pair("F32", Scheme::f32), std::pair("F16", Scheme::f16), std::pair("BF16", Scheme::bf16)}) {
    for (const bool tied : {false, true}) {
      const SourceModel model(type, tied);
      const Folder folder;
      QuantizeOptions options =
          options_for(model.write(folder), folder.file("model.tess"), Scheme::w4a8_g128);
      options.keep_head = true;
      options.kv_bits = 4;
      const auto summary = quantize_model(options);
      const auto file = TessFile::open(options.target, false);
      check_file(model, *file, Scheme::w4a8_g128, head, summary);
      CHECK(file->header().quantization.head_scheme == scheme_name(head));
      CHECK(file->header().quantization.kv_bits == 4);
    }
  }
}

TEST_CASE("the tokenizer in the file equals the folder's") {
  const SourceModel model("BF16", true);
  const Folder folder;
  const std::string source = model.write(folder);
  const std::string target = folder.file("model.tess");
  quantize_model(options_for(source, target, Scheme::w8a8));
  const auto file = TessFile::open(target, true);
  const Tokenizer stored = Tokenizer::from_stored(file->header().tokenizer, file->tensors());
  const Tokenizer direct = Tokenizer::from_folder(source);
  const std::string text = "A line, 42 numbers \xf0\x9f\x99\x82 and<|end|>";
  CHECK(stored.vocabulary() == direct.vocabulary());
  CHECK(stored.encode(text, true) == direct.encode(text, true));
  CHECK(stored.decode(stored.encode(text, true), true) == text);
}

TEST_CASE("the bytes do not depend on the number of threads; progress counts every weight") {
  const SourceModel model("F32", false, 5000);  // the head spans several blocks of rows
  const Folder folder;
  const std::string source = model.write(folder);
  uint64_t weights = 0;
  for (const auto& [name, tensor] : model.tensors) weights += tensor.values.size();
  std::vector<char> first;
  std::vector<QuantizeSummary> first_summary;
  for (const size_t threads : {1u, 2u, 5u, 0u}) {
    QuantizeOptions options = options_for(source, folder.file("model.tess"), Scheme::w4a8_g128);
    options.threads = threads;
    uint64_t last = 0;
    size_t wrong = 0;
    options.progress = [&](uint64_t done, uint64_t total) {
      wrong += done < last || total != weights;
      last = done;
    };
    const auto summary = quantize_model(options);
    CHECK(wrong == 0);
    CHECK(last == weights);
    const std::vector<char> bytes = read_bytes(options.target);
    if (first.empty()) {
      first = bytes;
      first_summary = summary;
    }
    CHECK(bytes == first);
    REQUIRE(summary.size() == first_summary.size());
    for (size_t i = 0; i < summary.size(); ++i)
      CHECK(summary[i].relative_error == first_summary[i].relative_error);
  }
}

TEST_CASE("harmless extra tensors are left out") {
  SourceModel model("BF16", true);
  model.add("model.layers.0.self_attn.rotary_emb.inv_freq", {12});
  model.add("lm_head.weight", {model.vocabulary, SourceModel::kHidden});
  const Folder folder;
  const std::string target = folder.file("model.tess");
  const auto summary = quantize_model(options_for(model.write(folder), target, Scheme::w4a8));
  const auto file = TessFile::open(target, true);
  check_file(model, *file, Scheme::w4a8, Scheme::w8a8, summary);
  CHECK(file->find("output_head") == nullptr);
}

TEST_CASE("checkpoints that do not fit their configuration are refused") {
  const std::string down = "model.layers.1.mlp.down_proj.weight";
  SUBCASE("missing tensor") {
    SourceModel model("BF16", false);
    model.tensors.erase(down);
    const std::string line = refusal(model);
    holds(line, down);
    holds(line, "[72, 172]");
  }
  SUBCASE("missing head of an untied model") {
    SourceModel model("BF16", false);
    model.tensors.erase("lm_head.weight");
    holds(refusal(model), "lm_head.weight");
  }
  SUBCASE("transposed matrix") {
    SourceModel model("BF16", false);
    model.add(down, {172, 72});
    const std::string line = refusal(model);
    holds(line, down);
    holds(line, "expected shape [72, 172], found [172, 72]");
  }
  SUBCASE("vector where a matrix belongs") {
    SourceModel model("F16", false);
    model.add(down, {172 * 72});
    holds(refusal(model), "expected shape [72, 172], found [12384]");
  }
  SUBCASE("integer weights") {
    SourceModel model("F32", false);
    model.tensors[down].type = "I32";
    const std::string line = refusal(model);
    holds(line, down);
    holds(line, "found I32");
  }
  SUBCASE("unknown tensors") {
    SourceModel model("BF16", false);
    model.add("model.layers.0.self_attn.q_norm.weight", {24});
    model.add("model.layers.2.mlp.up_proj.weight", {172, 72});
    const std::string line = refusal(model);
    holds(line, "and 1 more");
    holds(line, "no place for");
  }
  SUBCASE("layer beyond the configured number") {
    SourceModel model("BF16", false);
    model.config["num_hidden_layers"] = 1;
    holds(refusal(model), "model.layers.1.");
  }
  SUBCASE("an end token without an embedding") {  // others of that kind are left out
    const SourceModel model("BF16", false, 200);
    holds(refusal(model), "eos_token: \"<|end|>\" is not in the vocabulary");
  }
}

TEST_CASE("values that cannot be stored are refused by name and place") {
  const std::string up = "model.layers.0.mlp.up_proj.weight";
  SUBCASE("NaN in a matrix") {
    for (const std::string type : {"F32", "F16", "BF16"}) {
      SourceModel model(type, false);
      model.tensors[up].values[72 * 5 + 7] = std::numeric_limits<float>::quiet_NaN();
      const std::string line = refusal(model);
      holds(line, up);
      holds(line, "nan at [5, 7]");
    }
  }
  SUBCASE("the first of several, whatever the threads do") {
    SourceModel model("F32", false, 5000);
    model.tensors["lm_head.weight"].values[72 * 4999] = std::numeric_limits<float>::infinity();
    model.tensors["lm_head.weight"].values[72 * 17 + 1] = -std::numeric_limits<float>::infinity();
    holds(refusal(model), "-inf at [17, 1]");
  }
  SUBCASE("NaN in a vector") {
    SourceModel model("F32", true);
    model.tensors["model.norm.weight"].values[71] = std::numeric_limits<float>::quiet_NaN();
    const std::string line = refusal(model);
    holds(line, "model.norm.weight");
    holds(line, "nan at [71]");
  }
  SUBCASE("too large for f16") {
    SourceModel model("BF16", false);
    model.tensors[up].values[72 * 171] = -131072.0f;
    const std::string line = refusal(model, Scheme::f16);
    holds(line, up);
    holds(line, "range of f16");
    holds(line, "-131072 at [171, 0]");
  }
  SUBCASE("too large for bf16") {
    SourceModel model("F32", false);
    model.tensors[up].values[3] = std::numeric_limits<float>::max();
    holds(refusal(model, Scheme::bf16), "at [0, 3]");
  }
  SUBCASE("too large for the scales of a table scheme") {
    SourceModel model("F32", false);
    model.tensors[up].values[72 * 4 + 1] = -65520.0f;
    holds(refusal(model, parse_scheme("lut3-g64").value()), "range of lut3-g64, found -65520 at [4, 1]");
    model.tensors[up].values[72 * 4 + 1] = 65519.0f;
    const Folder folder;
    const std::string target = folder.file("model.tess");
    CHECK_NOTHROW(quantize_model(options_for(model.write(folder), target, parse_scheme("lut3-g64").value())));
    model.tensors[up].values[72 * 4 + 1] = 491400.0f;
    holds(refusal(model, parse_scheme("int4-g32").value()), "range of int4-g32, found 491400 at [4, 1]");
  }
  SUBCASE("too large for the levels of int8, int4m and int4k") {
    const std::pair<const char*, float> limits[] = {
        {"int8-g32", 65520.0f * 127}, {"int4m-g32", 65520.0f}, {"int4k-g32-a8", 65520.0f * 255}};
    for (const auto& each : limits) {
      const char* const name = each.first;
      const float limit = each.second;
      CAPTURE(name);
      SourceModel model("F32", false);
      model.tensors[up].values[72 * 4 + 1] = limit;
      holds(refusal(model, parse_scheme(name).value()), fmt::format("range of {}, found", name));
      // A group that falls from the lowest value on makes the line through its codes begin lower still.
      for (size_t k = 0; k < 32; ++k)
        model.tensors[up].values[72 * 4 + k] = -std::nextafter(limit, 0.0f) * (k < 20 ? 1.0f : 0.9f);
      const Folder folder;
      const std::string target = folder.file("model.tess");
      CHECK_NOTHROW(quantize_model(options_for(model.write(folder), target, parse_scheme(name).value())));
      CHECK(TessFile::open(target, true)->verify().empty());
    }
  }
  SUBCASE("large values that fit are stored") {
    SourceModel model("BF16", false);
    model.tensors[up].values[0] = 0x1p100f;
    const Folder folder;
    const std::string target = folder.file("model.tess");
    CHECK_NOTHROW(quantize_model(options_for(model.write(folder), target, Scheme::w4a8_g128)));
    CHECK(TessFile::open(target, true)->verify().empty());
  }
}

TEST_CASE("a failure leaves an older target as it was") {
  SourceModel model("F32", false);
  const Folder folder;
  const std::string target = folder.file("model.tess");
  const std::string source = model.write(folder);
  quantize_model(options_for(source, target, Scheme::w8a8));
  const std::vector<char> before = read_bytes(target);
  model.tensors["model.layers.1.mlp.down_proj.weight"].values[100] = std::numeric_limits<float>::quiet_NaN();
  model.write(folder);
  CHECK_THROWS_AS(quantize_model(options_for(source, target, Scheme::w4a8)), FileError);
  CHECK(folder.entries() == 2);
  CHECK(read_bytes(target) == before);
}

TEST_CASE("options that make no sense are refused") {
  const SourceModel model("F32", false);
  const Folder folder;
  const std::string source = model.write(folder);
  const std::string target = folder.file("model.tess");
  CHECK_THROWS_AS(quantize_model(options_for(source, target, Scheme::u8)), FileError);
  CHECK_THROWS_AS(quantize_model(options_for(folder.file("nowhere"), target, Scheme::w8a8)), FileError);
  CHECK_THROWS_AS(quantize_model(options_for(source, folder.file("no/such/model.tess"), Scheme::w8a8)),
                  FileError);
  QuantizeOptions options = options_for(source, target, Scheme::w8a8);
  options.kv_bits = 5;
  CHECK_THROWS_AS(quantize_model(options), FileError);
  CHECK(folder.entries() == 1);
}
