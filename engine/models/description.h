// What a decoder is, as plain data: the graph builder (decoder_graph.h) needs nothing else, and knows no
// family.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "gguf-like-format/model_header.h"
#include "gguf-like-format/tensor_roles.h"
#include "graph/graph.h"

namespace tessera {

// Of a layer.
struct LayerAttention {
  size_t window = 0;                      // positions that a token sees; 0: all
  std::vector<double> inverse_frequency;  // of rotary positions, radians per position and pair
  float scale = 0;                        // of scores before the softmax
};

// Every layer: x += m * attention(norm(x)); x += m * feed_forward(norm(x)), with m the residual multiplier.
// Norms divide by the root mean square unless they are layer norms; queries and keys are rotated in
// half-split order; the feed-forward part is down(function(gate) * up).
struct DecoderDescription {
  size_t vocabulary = 0;
  size_t hidden = 0;
  size_t layers = 0;
  size_t query_heads = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
  size_t ffn = 0;
  float norm_epsilon = 0;
  float head_norm_epsilon = 0;  // of query and key heads, whose mean is over their padding too
  LayerAttention full_attention;
  LayerAttention sliding_attention;
  std::vector<bool> slides;          // for every layer, which of both it has
  float attention_soft_cap = 0;      // of scores; 0: none
  float logits_soft_cap = 0;         // 0: none
  float embedding_multiplier = 1;    // x = embedding * this
  float residual_multiplier = 1;     // x += this * what a part of a layer gives
  bool learned_positions = false;    // added to embeddings; nothing is rotated then
  float alibi = 0;                   // of attention, see graph.h; nothing is rotated then; 0: none
  size_t log_scale_from = 0;         // of queries, see graph.h; 0: none
  bool projects_embeddings = false;  // from another width and back to it
  bool layer_norms = false;          // norms take away the mean and have a bias
  bool norms_follow = false;         // x = norm(x + part(x)), and no norm is left for the end
  bool qkv_bias = false;
  bool output_bias = false;
  bool query_key_norms = false;  // of every query and key head, before rotation
  bool output_norms = false;     // of what a part of a layer gives, before it is added
  GateFunction gate = GateFunction::silu;
  bool gated = true;      // otherwise the feed-forward part is down(function(up))
  bool ffn_bias = false;  // of up and down
  bool tied_head = false;
  bool rotated_table = false;  // the output norm's gain is applied between rotations: RotatedGain

  // Whether such a model has tensors of that role. Orders of columns are no matter of the model, but of how
  // its matrices are stored: false.
  bool has(Role role) const;
};

// Throws FileError that begins with source when a number is out of range, numbers disagree, or the family is
// unknown or always otherwise.
DecoderDescription describe_decoder(const Hyperparameters& hyperparameters, const std::string& source);

}  // namespace tessera
