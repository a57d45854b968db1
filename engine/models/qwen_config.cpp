#include "engine/models/qwen_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/models/head_padding.h"
#include "engine/models/llama_config.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

namespace limits = header_limits;

constexpr double kDefaultRopeTheta = 10000.0;
constexpr double kDefaultNormEpsilon = 1e-6;

}  // namespace

Hyperparameters read_qwen_config(const nlohmann::json&, const JsonFields& config,
                                 const HuggingFaceClass& type, std::vector<std::string>&) {
  refuse_other_classes(config, type);
  if (config.optional_number("rotary_pct", 0.0, 1.0).value_or(1.0) != 1.0)
    config.refuse_value("rotary_pct", "1");
  for (const std::string_view field : {"no_bias", "scale_attn_weights"})
    if (!config.boolean_or(field, true)) config.refuse_value(field, "true (false is not supported)");
  Hyperparameters h;
  h.vocabulary = config.integer("vocab_size", 1, limits::kMostVocabulary);
  h.hidden = config.integer("hidden_size", 1, limits::kMostHidden);
  h.layers = config.integer("num_hidden_layers", 1, limits::kMostLayers);
  h.query_heads = config.integer("num_attention_heads", 1, limits::kMostHeads);
  h.kv_heads = h.query_heads;
  const uint64_t head = head_dim_of_hidden(config, "hidden_size", "num_attention_heads", h);
  config.optional_integer("kv_channels", head, head);
  set_head_dim(head, h);
  // Gate and up together.
  h.ffn = config.integer("intermediate_size", 2, 2 * limits::kMostFfn);
  if (h.ffn % 2 != 0) config.refuse_value("intermediate_size", "an even number");
  h.ffn /= 2;
  const uint64_t trained = config.integer("seq_length", 2, limits::kMostContext);
  h.context = trained;
  h.norm_epsilon =
      config.optional_number("layer_norm_epsilon", limits::kLeastNormEpsilon, limits::kMostNormEpsilon)
          .value_or(kDefaultNormEpsilon);
  h.rope_theta = config.optional_number("rotary_emb_base", limits::kLeastRopeTheta, limits::kMostRopeTheta)
                     .value_or(kDefaultRopeTheta);
  h.dynamic_ntk = config.boolean_or("use_dynamic_ntk", true);
  if (config.boolean_or("use_logn_attn", true)) h.log_scale_from = trained;
  // Without other frequencies behind what it was trained on the model is used up to where it says.
  if (!h.dynamic_ntk)
    h.context = std::max(
        trained,
        config.optional_integer("max_position_embeddings", 1, limits::kMostContext).value_or(trained));
  h.tied_head = config.boolean_or("tie_word_embeddings", false);
  return h;
}

}  // namespace tessera
