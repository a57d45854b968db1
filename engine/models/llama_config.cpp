#include "engine/models/llama_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "engine/models/head_padding.h"
#include "engine/models/sliding_window.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;
namespace limits = header_limits;

constexpr size_t kMostWordBytes = 256;
constexpr double kDefaultNormEpsilon = 1e-6;
constexpr double kDefaultRopeTheta = 10000.0;

// A setting that changes the graph in a way we do not have: only its neutral value is accepted.
void require_off(const JsonFields& config, std::string_view field) {
  if (config.boolean_or(field, false)) config.refuse_value(field, "false (true is not supported)");
}

void refuse_unsupported(const JsonFields& config) {
  if (config.find("hidden_act") != nullptr && config.text("hidden_act", kMostWordBytes) != "silu")
    config.refuse_value("hidden_act", "silu");
  for (const std::string_view field : {"mlp_bias", "rope_interleaved", "use_mrope"})
    require_off(config, field);
  if (config.optional_number("partial_rotary_factor", 0.0, 1.0).value_or(1.0) != 1.0)
    config.refuse_value("partial_rotary_factor", "1");
}

// arXiv 2309.00071, section 3.4, with the refinements by mscale of DeepSeek's models.
RopeScaling read_yarn(const JsonFields& rope, RopeScaling scaling, uint64_t positions) {
  const auto positive = [&](std::string_view field) {
    return rope.optional_number(field, 1.0 / limits::kMostFactor, limits::kMostFactor);
  };
  scaling.kind = RopeScalingKind::yarn;
  scaling.original_context =
      rope.optional_integer("original_max_position_embeddings", 1, limits::kMostContext).value_or(positions);
  scaling.beta_fast = positive("beta_fast").value_or(32);
  scaling.beta_slow = positive("beta_slow").value_or(1);
  if (scaling.beta_fast <= scaling.beta_slow)
    rope.refuse_value("beta_fast", fmt::format("more than beta_slow ({})", scaling.beta_slow));
  scaling.whole_pairs = rope.boolean_or("truncate", true);
  const auto magnitude = [&](double multiplier) {
    return scaling.factor <= 1 ? 1.0 : 0.1 * multiplier * std::log(scaling.factor) + 1.0;
  };
  const auto mscale = rope.optional_number("mscale", 0, limits::kMostFactor);
  const auto mscale_all = rope.optional_number("mscale_all_dim", 0, limits::kMostFactor);
  const bool both = mscale.value_or(0) != 0 && mscale_all.value_or(0) != 0;
  scaling.attention_factor = positive("attention_factor")
                                 .value_or(both ? magnitude(*mscale) / magnitude(*mscale_all) : magnitude(1));
  return scaling;
}

// positions is max_position_embeddings.
RopeScaling read_rope_scaling(const JsonFields& rope, uint64_t positions, std::vector<std::string>& notes) {
  RopeScaling scaling;
  const std::string_view field = rope.find("rope_type") != nullptr || rope.find("type") == nullptr
                                     ? std::string_view("rope_type")
                                     : std::string_view("type");
  const std::string kind = rope.text(field, kMostWordBytes);
  if (rope.optional_number("partial_rotary_factor", 0.0, 1.0).value_or(1.0) != 1.0)
    rope.refuse_value("partial_rotary_factor", "1");
  if (kind == "default") return scaling;
  if (kind != "linear" && kind != "llama3" && kind != "yarn" && kind != "dynamic")
    rope.refuse_value(field, "default, linear, llama3, yarn or dynamic");
  scaling.factor = rope.number("factor", 1.0, limits::kMostFactor);
  if (kind == "dynamic") {
    notes.push_back(
        fmt::format("dynamic RoPE scaling changes nothing within the model's own {} tokens, where the "
                    "context ends",
                    positions));
    return {};
  }
  if (kind == "yarn") return read_yarn(rope, scaling, positions);
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
void read_rope(const JsonFields& config, Hyperparameters& h, std::vector<std::string>& notes) {
  h.rope_theta = config.optional_number("rope_theta", limits::kLeastRopeTheta, limits::kMostRopeTheta)
                     .value_or(kDefaultRopeTheta);
  const json* scaling = config.find("rope_scaling");
  const json* parameters = config.find("rope_parameters");
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters)
    config.refuse("rope_scaling", "the same as rope_parameters, or only one of them", "both and different");
  const std::string_view field = parameters != nullptr ? "rope_parameters" : "rope_scaling";
  if (config.find(field) == nullptr) return;
  read_rope_parameters(config.object(field), h, notes);
}

// What scaled positions reach may be more than max_position_embeddings says.
void stretch_context(const JsonFields& config, Hyperparameters& h) {
  const RopeScaling& scaling = h.rope_scaling;
  const auto reach = [&](uint64_t original) {
    const double tokens = static_cast<double>(original) * scaling.factor;
    return static_cast<uint64_t>(std::min(tokens, static_cast<double>(limits::kMostContext)));
  };
  if (scaling.kind == RopeScalingKind::yarn) h.context = std::max(h.context, reach(scaling.original_context));
  // Vicuna and LongChat say so where they scale linearly.
  const auto sequence = config.optional_integer("max_sequence_length", 1, limits::kMostContext);
  if (scaling.kind == RopeScalingKind::linear && sequence)
    h.context = std::max(h.context, std::min(*sequence, reach(h.context)));
}

uint64_t read_kv_heads(const json& document, const JsonFields& config, const HuggingFaceClass& type,
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

void check_head_dim(const JsonFields& config, std::string_view source, uint64_t head_dim) {
  if (head_dim % 2 != 0 || head_dim > limits::kMostHeadDim || head_dim == 0)
    config.refuse(source, fmt::format("heads of an even size of at most {}", limits::kMostHeadDim),
                  fmt::format("size {}", head_dim));
}

uint64_t read_head_dim(const JsonFields& config, const HuggingFaceClass& type, const Hyperparameters& h) {
  std::optional<uint64_t> head_dim = config.optional_integer("head_dim", 1, limits::kMostHeadDim);
  if (!head_dim && type.head_dim != 0) head_dim = type.head_dim;
  if (!head_dim) return head_dim_of_hidden(config, "hidden_size", "num_attention_heads", h);
  check_head_dim(config, "head_dim", *head_dim);
  return *head_dim;
}

}  // namespace

void refuse_other_classes(const JsonFields& config, const HuggingFaceClass& type) {
  if (config.find("architectures") != nullptr) {
    const json& names = config.array("architectures");
    const bool listed = std::any_of(names.begin(), names.end(), [&type](const json& name) {
      return name.is_string() && name.get_ref<const std::string&>() == type.architecture;
    });
    if (!listed) config.refuse("architectures", type.architecture, printable(names.dump()));
  }
}

uint64_t head_dim_of_hidden(const JsonFields& config, std::string_view hidden, std::string_view heads,
                            const Hyperparameters& h) {
  if (h.hidden % h.query_heads != 0)
    config.refuse_value(hidden,
                        fmt::format("a multiple of {} ({}) as there is no head_dim", heads, h.query_heads));
  check_head_dim(config, hidden, h.hidden / h.query_heads);
  return h.hidden / h.query_heads;
}

void read_rope_parameters(const JsonFields& rope, Hyperparameters& h, std::vector<std::string>& notes) {
  h.rope_scaling = read_rope_scaling(rope, h.context, notes);
  if (const auto theta = rope.optional_number("rope_theta", limits::kLeastRopeTheta, limits::kMostRopeTheta))
    h.rope_theta = *theta;
}

Hyperparameters read_decoder_shape(const json& document, const JsonFields& config,
                                   const HuggingFaceClass& type) {
  refuse_other_classes(config, type);
  Hyperparameters h;
  h.vocabulary = config.integer("vocab_size", 1, limits::kMostVocabulary);
  h.hidden = config.integer("hidden_size", 1, limits::kMostHidden);
  h.layers = config.integer("num_hidden_layers", 1, limits::kMostLayers);
  h.query_heads = config.integer("num_attention_heads", 1, limits::kMostHeads);
  h.kv_heads = read_kv_heads(document, config, type, h.query_heads);
  set_head_dim(read_head_dim(config, type, h), h);
  h.ffn = config.integer("intermediate_size", 1, limits::kMostFfn);
  h.context = config.integer("max_position_embeddings", 1, limits::kMostContext);
  h.norm_epsilon = config.optional_number("rms_norm_eps", limits::kLeastNormEpsilon, limits::kMostNormEpsilon)
                       .value_or(kDefaultNormEpsilon);
  const bool attention_bias = type.reads_attention_bias && config.boolean_or("attention_bias", false);
  h.qkv_bias = attention_bias;
  h.output_bias = attention_bias;
  return h;
}

Hyperparameters read_llama_config(const json& document, const JsonFields& config,
                                  const HuggingFaceClass& type, std::vector<std::string>& notes) {
  refuse_unsupported(config);
  Hyperparameters h = read_decoder_shape(document, config, type);
  read_rope(config, h, notes);
  stretch_context(config, h);
  read_sliding_window(document, config, type, 0, h);
  h.tied_head = config.boolean_or("tie_word_embeddings", false);
  return h;
}

Hyperparameters read_granite_config(const json& document, const JsonFields& config,
                                    const HuggingFaceClass& type, std::vector<std::string>& notes) {
  Hyperparameters h = read_llama_config(document, config, type, notes);
  // An absent multiplier is 1, also that of attention.
  const auto multiplier = [&](std::string_view field) {
    return config.optional_number(field, 1.0 / limits::kMostMultiplier, limits::kMostMultiplier)
        .value_or(1.0);
  };
  h.embedding_multiplier = multiplier("embedding_multiplier");
  h.residual_multiplier = multiplier("residual_multiplier");
  h.attention_scale = multiplier("attention_multiplier");
  h.logits_divisor = multiplier("logits_scaling");
  return h;
}

}  // namespace tessera
