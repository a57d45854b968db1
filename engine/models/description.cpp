#include "engine/models/description.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/models/families.h"
#include "engine/models/rope_frequencies.h"
#include "gguf-like-format/hyperparameter_checks.h"

namespace tessera {

namespace {

void check_bias(BiasRule rule, bool found, const char* field, const Family& family,
                const std::string& source) {
  if (rule == BiasRule::configured || found == (rule == BiasRule::always)) return;
  throw FileError(
      fmt::format("{}: model.{}: expected {} for {}, found {}", source, field, !found, family.name, found));
}

}  // namespace

bool DecoderDescription::has(Role role) const {
  switch (role) {
    case Role::q_bias:
    case Role::k_bias:
    case Role::v_bias:
      return qkv_bias;
    case Role::o_bias:
      return output_bias;
    case Role::q_norm:
    case Role::k_norm:
      return query_key_norms;
    case Role::attention_output_norm:
    case Role::ffn_output_norm:
      return output_norms;
    case Role::position_embedding:
      return learned_positions;
    case Role::embedding_projection:
    case Role::head_projection:
      return projects_embeddings;
    case Role::attention_norm_bias:
    case Role::ffn_norm_bias:
      return layer_norms;
    case Role::output_norm:
      return !norms_follow;
    case Role::output_norm_bias:
      return layer_norms && !norms_follow;
    case Role::gate:
      return gated;
    case Role::up_bias:
    case Role::down_bias:
      return ffn_bias;
    case Role::output_head:
      return !tied_head;
    case Role::output_gain:
      return rotated_table;
    default:
      return role_row(role).kind != RoleKind::order;
  }
}

DecoderDescription describe_decoder(const Hyperparameters& h, const std::string& source) {
  const Family& family = find_family(h.family, source);
  check_hyperparameters(h, source, "model");
  check_bias(family.qkv_bias, h.qkv_bias, "qkv_bias", family, source);
  check_bias(family.output_bias, h.output_bias, "output_bias", family, source);
  DecoderDescription out;
  out.vocabulary = static_cast<size_t>(h.vocabulary);
  out.hidden = static_cast<size_t>(h.hidden);
  out.layers = static_cast<size_t>(h.layers);
  out.query_heads = static_cast<size_t>(h.query_heads);
  out.kv_heads = static_cast<size_t>(h.kv_heads);
  out.head_dim = static_cast<size_t>(h.head_dim);
  out.ffn = static_cast<size_t>(h.ffn);
  out.norm_epsilon = static_cast<float>(h.norm_epsilon);
  out.head_norm_epsilon = static_cast<float>(h.norm_epsilon * static_cast<double>(h.model_head_dim()) /
                                             static_cast<double>(h.head_dim));
  const auto attention = [&](uint64_t window, double theta, const RopeScaling& scaling) {
    // A factor of all rotated elements of queries and keys is one of their products.
    const double rotated = scaling.kind == RopeScalingKind::yarn ? scaling.attention_factor : 1.0;
    const double scale =
        h.attention_scale != 0 ? h.attention_scale : 1.0 / std::sqrt(static_cast<double>(h.model_head_dim()));
    return LayerAttention{static_cast<size_t>(window),
                          rope_inverse_frequencies(static_cast<size_t>(h.model_head_dim()), theta, scaling),
                          static_cast<float>(rotated * rotated * scale)};
  };
  out.full_attention = attention(0, h.rope_theta, h.rope_scaling);
  out.sliding_attention = h.sliding_rope_theta != 0
                              ? attention(h.sliding_window, h.sliding_rope_theta, {})
                              : attention(h.sliding_window, h.rope_theta, h.rope_scaling);
  for (uint64_t layer = 0; layer < h.layers; ++layer) out.slides.push_back(h.slides(layer));
  out.attention_soft_cap = static_cast<float>(h.attention_soft_cap);
  out.logits_soft_cap = static_cast<float>(h.logits_soft_cap);
  out.embedding_multiplier = static_cast<float>(h.embedding_multiplier);
  out.residual_multiplier = static_cast<float>(h.residual_multiplier);
  out.learned_positions = family.learned_positions;
  out.alibi = static_cast<float>(h.alibi);
  out.log_scale_from = static_cast<size_t>(h.log_scale_from);
  out.projects_embeddings = h.embedding_width != 0;
  out.layer_norms = family.layer_norms;
  out.norms_follow = h.norms_follow;
  out.gated = family.gated;
  out.ffn_bias = family.ffn_bias;
  out.qkv_bias = h.qkv_bias;
  out.output_bias = h.output_bias;
  out.query_key_norms = family.query_key_norms;
  out.output_norms = family.output_norms;
  out.gate = family.gate;
  out.tied_head = h.tied_head;
  out.rotated_table = h.rotated_table;
  return out;
}

}  // namespace tessera
