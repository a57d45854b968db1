#include "engine/checkpoint/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/models/head_padding.h"
#include "engine/models/rope_frequencies.h"
#include "gguf-like-format/hyperparameter_checks.h"

namespace tessera {

namespace {

namespace limits = header_limits;

constexpr size_t kMostWordBytes = 256;
constexpr double kDefaultRopeTheta = 10000.0;

// Settings that change the graph in a way that we do not have, with the value that changes nothing.
struct NeutralSetting {
  std::string_view key;  // after the architecture
  double value;
};
constexpr std::array kNeutralSettings = {
    NeutralSetting{"expert_count", 0},
    NeutralSetting{"attention.scale", 0},
    NeutralSetting{"attention.clamp_kqv", 0},
    NeutralSetting{"attention.max_alibi_bias", 0},
    NeutralSetting{"attention.temperature_length", 0},
    NeutralSetting{"attention.temperature_scale", 0},
    NeutralSetting{"attn_logit_softcapping", 0},
    NeutralSetting{"final_logit_softcapping", 0},
    NeutralSetting{"embedding_scale", 1},
    NeutralSetting{"residual_scale", 1},
    NeutralSetting{"logit_scale", 1},
    NeutralSetting{"rope.scaling.attn_factor", 1},
};

class ModelKeys {
 public:
  ModelKeys(const GgufFile& file, std::string architecture)
      : file_(file), metadata_(file.metadata()), architecture_(std::move(architecture)) {}

  std::string key(std::string_view name) const { return fmt::format("{}.{}", architecture_, name); }

  Hyperparameters read(const Family& family) const {
    refuse_unsupported(family.gguf.read_keys);
    Hyperparameters h;
    h.family = family.name;
    h.vocabulary = tensor("token_embd.weight").shape.front();
    h.hidden = metadata_.integer(key("embedding_length"), 1, limits::kMostHidden);
    h.layers = metadata_.integer(key("block_count"), 1, limits::kMostLayers);
    const std::string query_heads = key("attention.head_count");
    const std::string kv_heads = key("attention.head_count_kv");
    h.query_heads = metadata_.uniform_integer(query_heads, 1, limits::kMostHeads);
    h.kv_heads =
        metadata_.has(kv_heads) ? metadata_.uniform_integer(kv_heads, 1, limits::kMostHeads) : h.query_heads;
    if (h.query_heads % h.kv_heads != 0)
      metadata_.refuse(kv_heads, fmt::format("a divisor of {} ({})", query_heads, h.query_heads),
                       fmt::format("{}", h.kv_heads));
    set_head_dim(head_dim(h), h);
    h.ffn = metadata_.uniform_integer(key("feed_forward_length"), 1, limits::kMostFfn);
    h.context = metadata_.integer(key("context_length"), 1, limits::kMostContext);
    h.norm_epsilon = metadata_.number(
        key(family.layer_norms ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"),
        limits::kLeastNormEpsilon, limits::kMostNormEpsilon);
    h.rope_theta =
        metadata_.optional_number(key("rope.freq_base"), limits::kLeastRopeTheta, limits::kMostRopeTheta)
            .value_or(kDefaultRopeTheta);
    h.rope_scaling = rope_scaling(h);
    h.tied_head = file_.find("output.weight") == nullptr;
    h.qkv_bias = family.qkv_bias == BiasRule::always || file_.find("blk.0.attn_q.bias") != nullptr ||
                 file_.find("blk.0.attn_qkv.bias") != nullptr;
    h.output_bias = family.output_bias == BiasRule::always || file_.find("blk.0.attn_output.bias") != nullptr;
    if (family.gguf.read != nullptr) family.gguf.read(metadata_, h);
    if (h.sliding_window == 0) refuse_sliding_window(h.context);
    check_hyperparameters(h, metadata_.where(), "model");
    return h;
  }

 private:
  const GgufTensor& tensor(const std::string& name) const {
    const GgufTensor* found = file_.find(name);
    if (found == nullptr)
      throw FileError(
          fmt::format("{}: tensor \"{}\": expected it, found no such tensor", metadata_.where(), name));
    return *found;
  }

  // read: keys that the architecture's own reader knows.
  void refuse_unsupported(std::span<const std::string_view> read) const {
    constexpr double most = std::numeric_limits<double>::max();
    for (const NeutralSetting& setting : kNeutralSettings) {
      if (std::find(read.begin(), read.end(), setting.key) != read.end()) continue;
      const auto value = metadata_.optional_number(key(setting.key), -most, most);
      if (value && *value != setting.value)
        metadata_.refuse(key(setting.key), fmt::format("{} (others are not supported)", setting.value),
                         fmt::format("{}", *value));
    }
    if (!metadata_.optional_boolean(key("attention.causal")).value_or(true))
      metadata_.refuse(key("attention.causal"), "true (false is not supported)", "false");
    if (metadata_.optional_boolean(key("use_parallel_residual")).value_or(false))
      metadata_.refuse(key("use_parallel_residual"), "false (true is not supported)", "true");
  }

  // Attention must reach every earlier position.
  void refuse_sliding_window(uint64_t context) const {
    const std::string name = key("attention.sliding_window");
    const auto window = metadata_.optional_integer(name, 0, std::numeric_limits<uint64_t>::max());
    if (window && *window != 0 && *window < context)
      metadata_.refuse(name, fmt::format("none, or at least {} ({})", key("context_length"), context),
                       fmt::format("{}", *window));
  }

  uint64_t head_dim(const Hyperparameters& h) const {
    const std::string name = key("attention.key_length");
    const auto given = metadata_.optional_integer(name, 1, limits::kMostHeadDim);
    if (!given && h.hidden % h.query_heads != 0)
      metadata_.refuse(key("embedding_length"),
                       fmt::format("a multiple of {} ({}) as there is no {}", key("attention.head_count"),
                                   h.query_heads, name),
                       fmt::format("{}", h.hidden));
    const uint64_t size = given.value_or(h.hidden / h.query_heads);
    // Values have heads of the same size, of which all of every key is rotated.
    for (const std::string_view other : {"attention.value_length", "rope.dimension_count"})
      metadata_.optional_integer(key(other), size, size);
    return size;
  }

  RopeScaling rope_scaling(const Hyperparameters& h) const {
    RopeScaling scaling;
    const std::string type_key = key("rope.scaling.type");
    const std::string type = metadata_.optional_text(type_key, kMostWordBytes).value_or("linear");
    if (type != "linear" && type != "none")
      metadata_.refuse(type_key, "none or linear", fmt::format("\"{}\"", printable(type)));
    if (type == "linear") {
      const std::string factor = key("rope.scaling.factor");
      const std::string old_factor = key("rope.scale_linear");
      scaling.factor =
          metadata_.optional_number(metadata_.has(factor) ? factor : old_factor, 0, limits::kMostFactor)
              .value_or(1.0);
      if (scaling.factor == 0) scaling.factor = 1.0;
      if (scaling.factor != 1.0) scaling.kind = RopeScalingKind::linear;
    }
    if (file_.find(kRopeDivisors) == nullptr) return scaling;
    if (scaling.kind != RopeScalingKind::none)
      metadata_.refuse(type_key, fmt::format("none beside tensor \"{}\"", kRopeDivisors), "linear");
    return llama3_scaling(h);
  }

  // Files hold no parameters of Llama 3's scaling, only what it divides each frequency by. The largest
  // divisor is its factor, the others are the same in all models known; the divisors must come out again.
  RopeScaling llama3_scaling(const Hyperparameters& h) const {
    // Writers compute divisors in f32; where the scaling sets in, rounding is magnified by the factor.
    constexpr double kTolerance = 1e-5;
    const GgufTensor& divisors = tensor(kRopeDivisors);
    const std::string label = fmt::format("tensor \"{}\"", kRopeDivisors);
    if (divisors.shape != std::vector<uint64_t>{h.model_head_dim() / 2})
      metadata_.refuse(label, fmt::format("shape [{}]", h.model_head_dim() / 2),
                       fmt::format("[{}]", fmt::join(divisors.shape, ", ")));
    std::vector<float> values(static_cast<size_t>(h.model_head_dim() / 2));
    read_floats(divisors, 0, values);
    const auto largest = static_cast<double>(*std::max_element(values.begin(), values.end()));
    RopeScaling scaling;
    scaling.kind = RopeScalingKind::llama3;
    scaling.factor = largest;
    scaling.low_freq_factor = 1.0;
    scaling.high_freq_factor = 4.0;
    scaling.original_context =
        metadata_.optional_integer(key("rope.scaling.original_context_length"), 1, limits::kMostContext)
            .value_or(8192);
    const auto head_size = static_cast<size_t>(h.model_head_dim());
    const std::vector<double> plain = rope_inverse_frequencies(head_size, h.rope_theta, {});
    const std::vector<double> scaled = rope_inverse_frequencies(head_size, h.rope_theta, scaling);
    for (size_t i = 0; i < values.size(); ++i) {
      const double expected = plain[i] / scaled[i];
      if (!(std::abs(static_cast<double>(values[i]) - expected) <= kTolerance * expected))
        metadata_.refuse(label,
                         fmt::format("divisors as Llama 3 scales frequencies by {}, {} at [{}]", largest,
                                     static_cast<float>(expected), i),
                         fmt::format("{}", values[i]));
    }
    return scaling;
  }

  const GgufFile& file_;
  const GgufMetadata& metadata_;
  std::string architecture_;
};

GenerationDefaults read_generation(const GgufMetadata& metadata) {
  GenerationDefaults out;
  out.temperature = metadata.optional_number("general.sampling.temp", 0.0, 1000.0);
  out.top_k = metadata.optional_integer("general.sampling.top_k", 0, std::numeric_limits<uint32_t>::max());
  out.top_p = metadata.optional_number("general.sampling.top_p", 0.0, 1.0);
  out.min_p = metadata.optional_number("general.sampling.min_p", 0.0, 1.0);
  out.repeat_penalty = metadata.optional_number("general.sampling.penalty_repeat", 1e-6, 1000.0);
  return out;
}

std::vector<uint32_t> read_stop_tokens(const GgufMetadata& metadata, uint64_t vocabulary) {
  std::vector<uint32_t> stops;
  for (const std::string_view role : {"eos", "eot", "eom"}) {
    const auto id =
        metadata.optional_integer(fmt::format("tokenizer.ggml.{}_token_id", role), 0, vocabulary - 1);
    if (id && std::find(stops.begin(), stops.end(), *id) == stops.end())
      stops.push_back(static_cast<uint32_t>(*id));
  }
  return stops;
}

// The file's name without what marks it as a GGUF file or as the first part of one.
std::string model_name(const GgufFile& file) {
  std::string name = std::filesystem::path(file.path()).filename().string();
  const uint64_t parts = file.metadata().optional_integer("split.count", 0, 1000).value_or(1);
  for (const std::string& end : {gguf_part_suffix(1, parts), std::string(".gguf")}) {
    if (name.size() > end.size() && name.substr(name.size() - end.size()) == end)
      name.resize(name.size() - end.size());
  }
  return name;
}

}  // namespace

ModelHeader read_gguf_header(const GgufFile& file) {
  constexpr std::string_view kArchitecture = "general.architecture";
  const GgufMetadata& metadata = file.metadata();
  const std::string architecture = metadata.text(kArchitecture, kMostWordBytes);
  const Family* family = find_gguf_architecture(architecture);
  if (family == nullptr)
    metadata.refuse(kArchitecture, known_gguf_architectures(),
                    fmt::format("\"{}\"", printable(architecture)));
  ModelHeader header;
  header.name = model_name(file);
  header.hyperparameters = ModelKeys(file, architecture).read(*family);
  header.generation = read_generation(metadata);
  header.chat.stop_tokens = read_stop_tokens(metadata, header.hyperparameters.vocabulary);
  header.chat.chat_template =
      metadata.optional_text("tokenizer.chat_template", limits::kMostTextBytes).value_or("");
  const BuiltInTemplate* built_in = find_built_in_template(*family, header.hyperparameters, nlohmann::json());
  if (header.chat.chat_template.empty() && built_in != nullptr)
    header.chat.chat_template = built_in_text(*built_in);
  return header;
}

}  // namespace tessera
