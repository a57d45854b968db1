#include "engine/models/gpt2_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/models/head_padding.h"
#include "engine/models/llama_config.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

namespace limits = header_limits;

constexpr size_t kMostWordBytes = 256;
constexpr double kDefaultNormEpsilon = 1e-5;

}  // namespace

Hyperparameters read_gpt2_config(const nlohmann::json&, const JsonFields& config,
                                 const HuggingFaceClass& type, std::vector<std::string>&) {
  refuse_other_classes(config, type);
  if (config.find("activation_function") != nullptr) {
    const std::string name = config.text("activation_function", kMostWordBytes);
    if (name != "gelu_new" && name != "gelu_pytorch_tanh")
      config.refuse_value("activation_function", "gelu_new");
  }
  for (const std::string_view field : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"})
    if (config.boolean_or(field, false)) config.refuse_value(field, "false (true is not supported)");
  Hyperparameters h;
  h.vocabulary = config.integer("vocab_size", 1, limits::kMostVocabulary);
  h.hidden = config.integer("n_embd", 1, limits::kMostHidden);
  h.layers = config.integer("n_layer", 1, limits::kMostLayers);
  h.query_heads = config.integer("n_head", 1, limits::kMostHeads);
  h.kv_heads = h.query_heads;
  set_head_dim(head_dim_of_hidden(config, "n_embd", "n_head", h), h);
  h.ffn = config.optional_integer("n_inner", 1, limits::kMostFfn).value_or(4 * h.hidden);
  h.context = config.integer("n_positions", 1, limits::kMostContext);
  h.norm_epsilon =
      config.optional_number("layer_norm_epsilon", limits::kLeastNormEpsilon, limits::kMostNormEpsilon)
          .value_or(kDefaultNormEpsilon);
  if (!config.boolean_or("scale_attn_weights", true)) h.attention_scale = 1;
  h.tied_head = config.boolean_or("tie_word_embeddings", true);
  return h;
}

}  // namespace tessera
