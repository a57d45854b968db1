#include "engine/models/opt_config.h"

#include <nlohmann/json.hpp>

#include "engine/models/head_padding.h"
#include "engine/models/llama_config.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

namespace limits = header_limits;

constexpr size_t kMostWordBytes = 256;
constexpr double kNormEpsilon = 1e-5;  // of torch.nn.LayerNorm; no setting of OPT

}  // namespace

Hyperparameters read_opt_config(const nlohmann::json&, const JsonFields& config, const HuggingFaceClass& type,
                                std::vector<std::string>&) {
  refuse_other_classes(config, type);
  if (config.find("activation_function") != nullptr &&
      config.text("activation_function", kMostWordBytes) != "relu")
    config.refuse_value("activation_function", "relu");
  for (const std::string_view field : {"enable_bias", "layer_norm_elementwise_affine"})
    if (!config.boolean_or(field, true)) config.refuse_value(field, "true (false is not supported)");
  if (config.boolean_or("_remove_final_layer_norm", false))
    config.refuse_value("_remove_final_layer_norm", "false (true is not supported)");
  Hyperparameters h;
  h.vocabulary = config.integer("vocab_size", 1, limits::kMostVocabulary);
  h.hidden = config.integer("hidden_size", 1, limits::kMostHidden);
  h.layers = config.integer("num_hidden_layers", 1, limits::kMostLayers);
  h.query_heads = config.integer("num_attention_heads", 1, limits::kMostHeads);
  h.kv_heads = h.query_heads;
  set_head_dim(head_dim_of_hidden(config, "hidden_size", "num_attention_heads", h), h);
  h.ffn = config.integer("ffn_dim", 1, limits::kMostFfn);
  h.context = config.integer("max_position_embeddings", 1, limits::kMostContext);
  h.norm_epsilon = kNormEpsilon;
  const uint64_t width =
      config.optional_integer("word_embed_proj_dim", 1, limits::kMostHidden).value_or(h.hidden);
  if (width != h.hidden) h.embedding_width = width;
  h.norms_follow = !config.boolean_or("do_layer_norm_before", true);
  h.tied_head = config.boolean_or("tie_word_embeddings", true);
  return h;
}

}  // namespace tessera
