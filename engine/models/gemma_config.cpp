#include "engine/models/gemma_config.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/models/llama_config.h"
#include "engine/models/sliding_window.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;
namespace limits = header_limits;

constexpr size_t kMostWordBytes = 256;
constexpr double kDefaultRopeTheta = 10000.0;
constexpr double kDefaultGemma3Theta = 1e6;

// The first models say "gelu" and mean its form with tanh, as all later ones do.
void check_activation(const JsonFields& config) {
  for (const std::string_view field : {"hidden_activation", "hidden_act"}) {
    if (config.find(field) == nullptr) continue;
    const std::string name = config.text(field, kMostWordBytes);
    if (name != "gelu_pytorch_tanh" && name != "gelu") config.refuse_value(field, "gelu_pytorch_tanh");
  }
}

double optional_cap(const JsonFields& config, std::string_view field) {
  return config.optional_number(field, 1.0 / limits::kMostMultiplier, limits::kMostMultiplier).value_or(0);
}

// Gemma 3 rotates layers that slide by frequencies of their own, which nothing scales. Newer checkpoints have
// an object for each type of layer in rope_parameters, older ones separate fields.
void read_rope(const JsonFields& config, bool separate, Hyperparameters& h, std::vector<std::string>& notes) {
  const auto theta = [&](const JsonFields& fields, std::string_view field, double otherwise) {
    return fields.optional_number(field, limits::kLeastRopeTheta, limits::kMostRopeTheta).value_or(otherwise);
  };
  h.rope_theta = theta(config, "rope_theta", separate ? kDefaultGemma3Theta : kDefaultRopeTheta);
  if (separate) h.sliding_rope_theta = theta(config, "rope_local_base_freq", kDefaultRopeTheta);
  if (config.find("rope_parameters") == nullptr) {
    if (config.find("rope_scaling") != nullptr) read_rope_parameters(config.object("rope_scaling"), h, notes);
    return;
  }
  const JsonFields rope = config.object("rope_parameters");
  if (!separate) return read_rope_parameters(rope, h, notes);
  read_rope_parameters(rope.object("full_attention"), h, notes);
  Hyperparameters sliding;
  sliding.context = h.context;
  sliding.rope_theta = h.sliding_rope_theta;
  const JsonFields local = rope.object("sliding_attention");
  read_rope_parameters(local, sliding, notes);
  if (sliding.rope_scaling.kind != RopeScalingKind::none) local.refuse_value("rope_type", "default");
  h.sliding_rope_theta = sliding.rope_theta;
}

}  // namespace

Hyperparameters read_gemma_config(const json& document, const JsonFields& config,
                                  const HuggingFaceClass& type, std::vector<std::string>& notes) {
  const bool third = type.model_type == "gemma3_text";
  const bool first = type.model_type == "gemma";
  check_activation(config);
  if (config.boolean_or("use_bidirectional_attention", false))
    config.refuse_value("use_bidirectional_attention", "false (true is not supported)");
  Hyperparameters h = read_decoder_shape(document, config, type);
  read_rope(config, third, h, notes);
  h.tied_head = config.boolean_or("tie_word_embeddings", true);
  h.embedding_multiplier = std::sqrt(static_cast<double>(h.hidden));
  if (first) return h;
  const double divisor =
      config.optional_number("query_pre_attn_scalar", 1.0 / limits::kMostMultiplier, 1e6).value_or(256.0);
  h.attention_scale = 1.0 / std::sqrt(divisor);
  h.attention_soft_cap = optional_cap(config, "attn_logit_softcapping");
  h.logits_soft_cap = optional_cap(config, "final_logit_softcapping");
  uint64_t full_every = third ? 6 : 2;
  for (const std::string_view field : {"sliding_window_pattern", "_sliding_window_pattern"})
    full_every = config.optional_integer(field, 1, limits::kMostLayers).value_or(full_every);
  read_sliding_window(document, config, type, full_every, h);
  return h;
}

}  // namespace tessera
