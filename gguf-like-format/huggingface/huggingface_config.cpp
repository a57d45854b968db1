#include "gguf-like-format/huggingface/huggingface_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "gguf-like-format/strict_json.h"
#include "gguf-like-format/tess/tess_header.h"

namespace tessera {

namespace {

using nlohmann::json;
namespace limits = header_limits;

constexpr JsonLimits kConfigLimits{size_t{4} << 20, 32};
constexpr JsonLimits kTokenizerConfigLimits{size_t{64} << 20, 32};
constexpr size_t kMostWordBytes = 256;

// What transformers assumes of a model type where config.json is silent, and what the type always has.
struct ModelType {
  std::string_view name;
  std::string_view family;        // which graph of ours it is
  std::string_view architecture;  // the class with a language model head
  uint64_t kv_heads;              // 0: as many as query heads
  uint64_t sliding_window;        // 0: none
  bool always_qkv_bias;
  bool reads_attention_bias;
};
constexpr ModelType kModelTypes[] = {
    {"llama", "llama", "LlamaForCausalLM", 0, 0, false, true},
    {"mistral", "llama", "MistralForCausalLM", 8, 4096, false, false},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", 32, 0, true, false},
};
constexpr double kDefaultNormEpsilon = 1e-6;
constexpr double kDefaultRopeTheta = 10000.0;

const ModelType& find_model_type(const JsonFields& config) {
  const std::string name = config.text("model_type", kMostWordBytes);
  for (const ModelType& type : kModelTypes)
    if (type.name == name) return type;
  config.refuse_value("model_type", "llama, mistral or qwen2");
}

// A setting that changes the graph in a way we do not have: only its neutral value is accepted.
void require_off(const JsonFields& config, std::string_view field) {
  if (config.boolean_or(field, false)) config.refuse_value(field, "false (true is not supported)");
}

void refuse_unsupported(const JsonFields& config, const ModelType& type) {
  if (config.find("quantization_config") != nullptr)
    config.refuse("quantization_config", "a checkpoint in f32, f16 or bf16", "one that is already quantized");
  if (config.find("architectures") != nullptr) {
    const json& names = config.array("architectures");
    const bool listed = std::any_of(names.begin(), names.end(), [&type](const json& name) {
      return name.is_string() && name.get_ref<const std::string&>() == type.architecture;
    });
    if (!listed) config.refuse("architectures", type.architecture, printable(names.dump()));
  }
  if (config.find("hidden_act") != nullptr && config.text("hidden_act", kMostWordBytes) != "silu")
    config.refuse_value("hidden_act", "silu");
  for (const std::string_view field : {"mlp_bias", "rope_interleaved", "use_mrope"})
    require_off(config, field);
  if (config.optional_number("partial_rotary_factor", 0.0, 1.0).value_or(1.0) != 1.0)
    config.refuse_value("partial_rotary_factor", "1");
}

// Attention must reach every earlier position. An absent sliding_window means the type's default; null says
// that there is none.
void refuse_sliding_window(const json& document, const JsonFields& config, const ModelType& type,
                           uint64_t context) {
  if (config.find("layer_types") != nullptr) {
    const json& types = config.array("layer_types");
    for (size_t i = 0; i < types.size(); ++i)
      if (types[i] != "full_attention")
        config.refuse(fmt::format("layer_types[{}]", i), "full_attention", printable(types[i].dump()));
  }
  if (type.name == "llama") return;  // has no such setting
  if (type.name == "qwen2" && !config.boolean_or("use_sliding_window", false)) return;
  constexpr uint64_t most = std::numeric_limits<int64_t>::max();
  std::optional<uint64_t> window = config.optional_integer("sliding_window", 0, most);
  if (!document.contains("sliding_window") && type.sliding_window != 0) window = type.sliding_window;
  if (window && *window < context)
    config.refuse("sliding_window", fmt::format("none, or at least max_position_embeddings ({})", context),
                  fmt::format("{}", *window));
}

RopeScaling read_rope_scaling(const JsonFields& rope) {
  RopeScaling scaling;
  const std::string_view field = rope.find("rope_type") != nullptr || rope.find("type") == nullptr
                                     ? std::string_view("rope_type")
                                     : std::string_view("type");
  const std::string kind = rope.text(field, kMostWordBytes);
  if (rope.optional_number("partial_rotary_factor", 0.0, 1.0).value_or(1.0) != 1.0)
    rope.refuse_value("partial_rotary_factor", "1");
  if (kind == "default") return scaling;
  if (kind != "linear" && kind != "llama3") rope.refuse_value(field, "default, linear or llama3");
  scaling.factor = rope.number("factor", 1.0, limits::kMostFactor);
  scaling.kind = RopeScalingKind::linear;
  if (kind == "linear") return scaling;
  scaling.kind = RopeScalingKind::llama3;
  scaling.low_freq_factor = rope.number("low_freq_factor", 1.0 / limits::kMostFactor, limits::kMostFactor);
  scaling.high_freq_factor = rope.number("high_freq_factor", 1.0 / limits::kMostFactor, limits::kMostFactor);
  if (scaling.high_freq_factor <= scaling.low_freq_factor)
    rope.refuse_value("high_freq_factor",
                      fmt::format("more than low_freq_factor ({})", scaling.low_freq_factor));
  scaling.original_context = rope.integer("original_max_position_embeddings", 1, limits::kMostContext);
  return scaling;
}

// Older checkpoints have rope_theta beside rope_scaling; newer ones have both in rope_parameters.
void read_rope(const JsonFields& config, Hyperparameters& h) {
  h.rope_theta = config.optional_number("rope_theta", limits::kLeastRopeTheta, limits::kMostRopeTheta)
                     .value_or(kDefaultRopeTheta);
  const json* scaling = config.find("rope_scaling");
  const json* parameters = config.find("rope_parameters");
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters)
    config.refuse("rope_scaling", "the same as rope_parameters, or only one of them", "both and different");
  const std::string_view field = parameters != nullptr ? "rope_parameters" : "rope_scaling";
  if (config.find(field) == nullptr) return;
  const JsonFields rope = config.object(field);
  h.rope_scaling = read_rope_scaling(rope);
  if (const auto theta = rope.optional_number("rope_theta", limits::kLeastRopeTheta, limits::kMostRopeTheta))
    h.rope_theta = *theta;
}

uint64_t read_kv_heads(const json& document, const JsonFields& config, const ModelType& type,
                       uint64_t query_heads) {
  // Absent means the type's default; null means as many as query heads.
  uint64_t heads =
      document.contains("num_key_value_heads") || type.kv_heads == 0 ? query_heads : type.kv_heads;
  heads = config.optional_integer("num_key_value_heads", 1, limits::kMostHeads).value_or(heads);
  if (query_heads % heads != 0)
    config.refuse("num_key_value_heads", fmt::format("a divisor of num_attention_heads ({})", query_heads),
                  fmt::format("{}", heads));
  return heads;
}

uint64_t read_head_dim(const JsonFields& config, const Hyperparameters& h) {
  std::optional<uint64_t> head_dim = config.optional_integer("head_dim", 1, limits::kMostHeadDim);
  const std::string_view source = head_dim ? "head_dim" : "hidden_size";
  if (!head_dim) {
    if (h.hidden % h.query_heads != 0)
      config.refuse_value(
          "hidden_size",
          fmt::format("a multiple of num_attention_heads ({}) as there is no head_dim", h.query_heads));
    head_dim = h.hidden / h.query_heads;
  }
  if (*head_dim % limits::kHeadDimStep != 0 || *head_dim > limits::kMostHeadDim || *head_dim == 0)
    config.refuse(source,
                  fmt::format("heads whose size is a multiple of {} and at most {}", limits::kHeadDimStep,
                              limits::kMostHeadDim),
                  fmt::format("size {}", *head_dim));
  return *head_dim;
}

Hyperparameters read_hyperparameters(const json& document, const std::string& path) {
  const JsonFields config(document, path, "");
  const ModelType& type = find_model_type(config);
  refuse_unsupported(config, type);
  Hyperparameters h;
  h.family = type.family;
  h.vocabulary = config.integer("vocab_size", 1, limits::kMostVocabulary);
  h.hidden = config.integer("hidden_size", 1, limits::kMostHidden);
  h.layers = config.integer("num_hidden_layers", 1, limits::kMostLayers);
  h.query_heads = config.integer("num_attention_heads", 1, limits::kMostHeads);
  h.kv_heads = read_kv_heads(document, config, type, h.query_heads);
  h.head_dim = read_head_dim(config, h);
  h.ffn = config.integer("intermediate_size", 1, limits::kMostFfn);
  h.context = config.integer("max_position_embeddings", 1, limits::kMostContext);
  refuse_sliding_window(document, config, type, h.context);
  h.norm_epsilon = config.optional_number("rms_norm_eps", limits::kLeastNormEpsilon, limits::kMostNormEpsilon)
                       .value_or(kDefaultNormEpsilon);
  read_rope(config, h);
  h.tied_head = config.boolean_or("tie_word_embeddings", false);
  const bool attention_bias = type.reads_attention_bias && config.boolean_or("attention_bias", false);
  h.qkv_bias = type.always_qkv_bias || attention_bias;
  h.output_bias = attention_bias;
  check_hyperparameters(h, path, "model");
  return h;
}

// eos_token_id is one id, a list of ids, or null.
void add_stop_tokens(const JsonFields& fields, uint64_t vocabulary, std::vector<uint32_t>& stops) {
  const json* value = fields.find("eos_token_id");
  if (value == nullptr) return;
  const auto add = [&](const json& id, const std::string& label) {
    const auto token = static_cast<uint32_t>(fields.element(id, label, 0, vocabulary - 1));
    if (std::find(stops.begin(), stops.end(), token) == stops.end()) stops.push_back(token);
  };
  if (!value->is_array()) return add(*value, fields.label("eos_token_id"));
  if (value->size() > limits::kMostStopTokens)
    fields.refuse("eos_token_id", fmt::format("at most {} ids", limits::kMostStopTokens),
                  std::to_string(value->size()));
  for (size_t i = 0; i < value->size(); ++i)
    add((*value)[i], fmt::format("{}[{}]", fields.label("eos_token_id"), i));
}

GenerationDefaults read_generation(const JsonFields& fields) {
  GenerationDefaults out;
  out.temperature = fields.optional_number("temperature", 0.0, 1000.0);
  out.top_k = fields.optional_integer("top_k", 0, std::numeric_limits<uint32_t>::max());
  out.top_p = fields.optional_number("top_p", 0.0, 1.0);
  out.min_p = fields.optional_number("min_p", 0.0, 1.0);
  out.repeat_penalty = fields.optional_number("repetition_penalty", 1e-6, 1000.0);
  if (fields.find("do_sample") != nullptr) out.do_sample = fields.boolean("do_sample");
  return out;
}

// One template, or a list of named ones of which "default" is the one for conversations.
std::string read_template_field(const JsonFields& fields) {
  constexpr std::string_view field = "chat_template";
  const json* value = fields.find(field);
  if (value == nullptr) return {};
  if (!value->is_array()) return fields.text(field, limits::kMostTextBytes);
  for (size_t i = 0; i < value->size(); ++i) {
    const JsonFields entry((*value)[i], fields.where(), fmt::format("{}[{}]", field, i));
    if (entry.text("name", kMostWordBytes) == "default")
      return entry.text("template", limits::kMostTextBytes);
  }
  fields.refuse(field, "a template named \"default\" in the list", "none");
}

std::string read_chat_template(const std::string& folder) {
  std::error_code error;
  const std::string own_file = folder + "/chat_template.jinja";
  if (std::filesystem::exists(own_file, error)) return read_utf8_file(own_file, limits::kMostTextBytes);
  const std::string settings = folder + "/tokenizer_config.json";
  if (!std::filesystem::exists(settings, error)) return {};
  const json document = read_strict_json(settings, kTokenizerConfigLimits);
  return read_template_field(JsonFields(document, settings, ""));
}

// The folder's own name, whatever way it was written.
std::string folder_name(const std::string& folder) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(folder, error);
  return error ? folder : real.filename().string();
}

}  // namespace

ModelHeader read_huggingface_folder(const std::string& folder) {
  ModelHeader header;
  header.name = folder_name(folder);
  const std::string config_path = folder + "/config.json";
  const json config = read_strict_json(config_path, kConfigLimits);
  header.hyperparameters = read_hyperparameters(config, config_path);
  const std::string generation_path = folder + "/generation_config.json";
  std::error_code error;
  if (std::filesystem::exists(generation_path, error)) {
    const json document = read_strict_json(generation_path, kConfigLimits);
    const JsonFields fields(document, generation_path, "");
    header.generation = read_generation(fields);
    add_stop_tokens(fields, header.hyperparameters.vocabulary, header.chat.stop_tokens);
  }
  add_stop_tokens(JsonFields(config, config_path, ""), header.hyperparameters.vocabulary,
                  header.chat.stop_tokens);
  header.chat.chat_template = read_chat_template(folder);
  return header;
}

}  // namespace tessera
