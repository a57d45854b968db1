// Every number and switch of a model's header, listed once: writing, reading, range checks and comparison all
// visit this list.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "gguf-like-format/model_header.h"

namespace tessera {

// What a model may be at most. Generous, and small enough that no product of a few of them overflows.
namespace header_limits {
inline constexpr uint64_t kMostVocabulary = uint64_t{1} << 24;
inline constexpr uint64_t kMostHidden = uint64_t{1} << 20;
inline constexpr uint64_t kMostLayers = 4096;
inline constexpr uint64_t kMostHeads = 4096;
inline constexpr uint64_t kMostHeadDim = 1024;
inline constexpr uint64_t kHeadDimStep = 8;
inline constexpr uint64_t kMostFfn = uint64_t{1} << 24;
inline constexpr uint64_t kMostContext = uint64_t{1} << 24;
inline constexpr double kLeastNormEpsilon = std::numeric_limits<float>::min();  // used in single precision
inline constexpr double kMostNormEpsilon = 1.0;
inline constexpr double kLeastRopeTheta = 1.0;
inline constexpr double kMostRopeTheta = 1e15;
inline constexpr double kMostFactor = 1e6;                 // of RoPE scaling
inline constexpr double kMostMultiplier = 1e6;             // of activations; the least is its inverse
inline constexpr double kMostAlibi = 64;                   // the exponent of its least slope
inline constexpr size_t kMostTextBytes = size_t{1} << 20;  // chat template
// Settings of a tokenizer: tens of thousands of added tokens.
inline constexpr size_t kMostSettingsBytes = size_t{32} << 20;
inline constexpr size_t kMostStopTokens = 1024;
}  // namespace header_limits

// The values a field may have, both ends included. Where there is a default, a field of that value is not
// written, so that files of models without the feature do not change.
template <class Number>
struct FieldRule {
  Number least;
  Number most;
  bool has_default = false;
  Number default_value = {};
};

struct OffByDefault {};

// Calls visitor for every field, in the order of the header, with the field's name, the field and
// - a FieldRule for whole numbers (uint64_t) and real numbers (double),
// - an OffByDefault for switches (bool) that are off unless written,
// - nothing more for other switches and the family's name,
// and visitor.rope_scaling(name, field) for the one nested object. Hyperparameters may be const.
template <class Fields, class Visitor>
void visit_hyperparameters(Fields& h, Visitor&& visitor) {
  using namespace header_limits;
  using Whole = FieldRule<uint64_t>;
  using Real = FieldRule<double>;
  visitor("family", h.family);
  visitor("vocabulary", h.vocabulary, Whole{1, kMostVocabulary});
  visitor("hidden", h.hidden, Whole{1, kMostHidden});
  visitor("layers", h.layers, Whole{1, kMostLayers});
  visitor("query_heads", h.query_heads, Whole{1, kMostHeads});
  visitor("kv_heads", h.kv_heads, Whole{1, kMostHeads});
  visitor("head_dim", h.head_dim, Whole{kHeadDimStep, kMostHeadDim});
  visitor("ffn", h.ffn, Whole{1, kMostFfn});
  visitor("context", h.context, Whole{1, kMostContext});
  visitor("norm_epsilon", h.norm_epsilon, Real{kLeastNormEpsilon, kMostNormEpsilon});
  visitor("rope_theta", h.rope_theta, Real{kLeastRopeTheta, kMostRopeTheta});
  visitor.rope_scaling("rope_scaling", h.rope_scaling);
  visitor("tied_head", h.tied_head);
  visitor("rotated_table", h.rotated_table, OffByDefault());
  visitor("qkv_bias", h.qkv_bias);
  visitor("output_bias", h.output_bias);
  visitor("head_padding", h.head_padding, Whole{0, kHeadDimStep - 1, true, 0});
  constexpr Real kMultiplier{1.0 / kMostMultiplier, kMostMultiplier, true, 1.0};
  visitor("embedding_multiplier", h.embedding_multiplier, kMultiplier);
  visitor("residual_multiplier", h.residual_multiplier, kMultiplier);
  visitor("attention_scale", h.attention_scale, Real{0.0, kMostMultiplier, true, 0.0});
  visitor("logits_divisor", h.logits_divisor, kMultiplier);
  constexpr Real kSoftCap{0.0, kMostMultiplier, true, 0.0};
  visitor("attention_soft_cap", h.attention_soft_cap, kSoftCap);
  visitor("logits_soft_cap", h.logits_soft_cap, kSoftCap);
  visitor("sliding_window", h.sliding_window, Whole{0, kMostContext, true, 0});
  visitor("first_sliding_layer", h.first_sliding_layer, Whole{0, kMostLayers, true, 0});
  visitor("full_attention_every", h.full_attention_every, Whole{0, kMostLayers, true, 0});
  visitor("sliding_rope_theta", h.sliding_rope_theta, Real{0.0, kMostRopeTheta, true, 0.0});
  visitor("alibi", h.alibi, Real{0.0, kMostAlibi, true, 0.0});
  visitor("dynamic_ntk", h.dynamic_ntk, OffByDefault());
  visitor("log_scale_from", h.log_scale_from, Whole{0, kMostContext, true, 0});
  visitor("embedding_width", h.embedding_width, Whole{0, kMostHidden, true, 0});
  visitor("norms_follow", h.norms_follow, OffByDefault());
}

// The fields of RoPE scaling that its kind has, apart from the kind itself.
template <class Scaling, class Visitor>
void visit_rope_scaling(Scaling& scaling, Visitor&& visitor) {
  using namespace header_limits;
  using Real = FieldRule<double>;
  if (scaling.kind == RopeScalingKind::none) return;
  visitor("factor", scaling.factor, Real{1.0, kMostFactor});
  if (scaling.kind == RopeScalingKind::linear) return;
  if (scaling.kind == RopeScalingKind::yarn) {
    visitor("original_context", scaling.original_context, FieldRule<uint64_t>{1, kMostContext});
    visitor("beta_fast", scaling.beta_fast, Real{1.0 / kMostFactor, kMostFactor});
    visitor("beta_slow", scaling.beta_slow, Real{1.0 / kMostFactor, kMostFactor});
    visitor("whole_pairs", scaling.whole_pairs);
    visitor("attention_factor", scaling.attention_factor, Real{1.0 / kMostFactor, kMostFactor});
    return;
  }
  visitor("low_freq_factor", scaling.low_freq_factor, Real{1.0 / kMostFactor, kMostFactor});
  visitor("high_freq_factor", scaling.high_freq_factor, Real{1.0 / kMostFactor, kMostFactor});
  visitor("original_context", scaling.original_context, FieldRule<uint64_t>{1, kMostContext});
}

}  // namespace tessera
