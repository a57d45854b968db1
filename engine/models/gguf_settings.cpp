#include "engine/models/gguf_settings.h"

#include <fmt/format.h>

#include <cmath>

#include "gguf-like-format/gguf/gguf_metadata.h"
#include "gguf-like-format/hyperparameter_checks.h"

namespace tessera {

namespace {

namespace limits = header_limits;

// Gemma's files do not store the factor of embeddings, and usually not the scale of scores: those of its
// largest models, whose layers are as many as largest_layers, are divided by the root of hidden / heads,
// others by that of head_dim.
void read_any_gemma(const GgufMetadata& metadata, const std::string& architecture, uint64_t largest_layers,
                    Hyperparameters& h) {
  h.embedding_multiplier = std::sqrt(static_cast<double>(h.hidden));
  h.attention_scale =
      metadata.optional_number(architecture + ".attention.scale", 0, limits::kMostMultiplier).value_or(0);
  if (h.attention_scale == 0 && h.layers == largest_layers)
    h.attention_scale = std::sqrt(static_cast<double>(h.query_heads) / static_cast<double>(h.hidden));
}

// The last layer of each `period` sees everything.
void read_windows(const GgufMetadata& metadata, const std::string& architecture, uint64_t period,
                  Hyperparameters& h) {
  h.sliding_window = metadata.integer(architecture + ".attention.sliding_window", 1, limits::kMostContext);
  h.full_attention_every = period;
}

}  // namespace

void read_granite_gguf(const GgufMetadata& metadata, Hyperparameters& h) {
  // 0 and an absent key mean 1; scores have no default.
  const auto multiplier = [&](const char* key) {
    const double value = metadata.optional_number(key, 0, limits::kMostMultiplier).value_or(0);
    return value == 0 ? 1.0 : value;
  };
  h.embedding_multiplier = multiplier("granite.embedding_scale");
  h.residual_multiplier = multiplier("granite.residual_scale");
  h.logits_divisor = multiplier("granite.logit_scale");
  h.attention_scale =
      metadata.optional_number("granite.attention.scale", 0, limits::kMostMultiplier).value_or(0);
}

void read_qwen_gguf(const GgufMetadata& metadata, Hyperparameters& h) {
  // The feed-forward length is that of gate and up together.
  if (h.ffn % 2 != 0) metadata.refuse("qwen.feed_forward_length", "an even number", fmt::format("{}", h.ffn));
  h.ffn /= 2;
}

void read_baichuan_gguf(const GgufMetadata&, Hyperparameters& h) {
  constexpr uint64_t kLayersOf13B = 40;  // nothing else tells them from those with rotary positions
  if (h.layers == kLayersOf13B) h.alibi = kBaichuanAlibi;
}

void read_gemma_gguf(const GgufMetadata& metadata, Hyperparameters& h) {
  read_any_gemma(metadata, "gemma", 0, h);
}

void read_gemma2_gguf(const GgufMetadata& metadata, Hyperparameters& h) {
  constexpr uint64_t kLargest = 46;  // layers of 27B
  // What all of Google's models of this architecture have.
  constexpr double kAttentionCap = 50;
  constexpr double kLogitsCap = 30;
  read_any_gemma(metadata, "gemma2", kLargest, h);
  read_windows(metadata, "gemma2", 2, h);
  const auto cap = [&](const char* key) { return metadata.optional_number(key, 0, limits::kMostMultiplier); };
  h.attention_soft_cap = cap("gemma2.attn_logit_softcapping").value_or(kAttentionCap);
  h.logits_soft_cap = cap("gemma2.final_logit_softcapping").value_or(kLogitsCap);
}

void read_gemma3_gguf(const GgufMetadata& metadata, Hyperparameters& h) {
  constexpr uint64_t kLargest = 62;  // layers of 27B
  constexpr double kSlidingTheta = 10000;
  read_any_gemma(metadata, "gemma3", kLargest, h);
  read_windows(metadata, "gemma3", 6, h);
  h.sliding_rope_theta =
      metadata.optional_number("gemma3.rope.freq_base_swa", limits::kLeastRopeTheta, limits::kMostRopeTheta)
          .value_or(kSlidingTheta);
  h.logits_soft_cap =
      metadata.optional_number("gemma3.final_logit_softcapping", 0, limits::kMostMultiplier).value_or(0);
}

}  // namespace tessera
