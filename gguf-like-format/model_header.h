// What the JSON header of a .tess file says about a model, apart from where its tensors lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

enum class RopeScalingKind : uint8_t { none, linear, llama3, yarn };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // llama3 only
  double high_freq_factor = 4.0;  // llama3 only
  uint64_t original_context = 0;  // llama3 and yarn
  // yarn only: rotations over the original context of the fastest and the slowest pair that are blended,
  // whether the bounds are whole pairs, and the factor of rotated queries and of rotated keys.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool whole_pairs = true;
  double attention_factor = 1.0;
};

struct Hyperparameters {
  std::string family;  // a name of the table in engine/models/families.cpp
  uint64_t vocabulary = 0;
  uint64_t hidden = 0;
  uint64_t layers = 0;
  uint64_t query_heads = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;  // with its padding
  uint64_t ffn = 0;
  uint64_t context = 0;
  double norm_epsilon = 1e-5;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool tied_head = false;
  // The residual stream is rotated (graph/rotation.h), and with it the table that embeds and is the head. The
  // gain of the output norm, which other rotated files have in their heads, is then a tensor of its own.
  bool rotated_table = false;
  bool qkv_bias = false;
  bool output_bias = false;  // bias on the attention output projection
  // Zeros at the end of every query, key and value head: heads of other sizes than kernels take are made
  // longer.
  uint64_t head_padding = 0;
  double embedding_multiplier = 1.0;  // of rows of the token embedding
  double residual_multiplier = 1.0;   // of what attention and feed-forward part add to the residual stream
  double attention_scale = 0.0;       // of scores; 0: 1 / sqrt(head_dim)
  double logits_divisor = 1.0;        // that the stored gains of output_norm have been divided by
  double attention_soft_cap = 0.0;    // scores s become cap * tanh(s / cap); 0: none
  double logits_soft_cap = 0.0;       // the same for logits
  // Positions that a token sees in layers that slide, itself among them; 0: no layer slides. Layers from
  // first_sliding_layer on slide, except every full_attention_every-th of all layers where that is not 0.
  uint64_t sliding_window = 0;
  uint64_t first_sliding_layer = 0;
  uint64_t full_attention_every = 0;
  double sliding_rope_theta = 0.0;  // of layers that slide, without rope_scaling; 0: as in other layers
  double alibi =
      0.0;  // scores fall with distance, by slopes from about 1 to 2^-alibi; 0: positions are rotary
  bool dynamic_ntk = false;      // a context beyond the model's own asks for another rope_theta
  uint64_t log_scale_from = 0;   // see Attention in graph/graph.h; 0: queries are taken as they are
  uint64_t embedding_width = 0;  // of embeddings, projected to hidden and back; 0: hidden
  bool norms_follow = false;     // each part of a layer and its addition, instead of going before it

  uint64_t model_head_dim() const { return head_dim - head_padding; }  // as the model means it
  bool slides(uint64_t layer) const {
    return sliding_window != 0 && layer >= first_sliding_layer &&
           (full_attention_every == 0 || (layer + 1) % full_attention_every != 0);
  }
};

struct GenerationDefaults {  // sampling defaults of the model; absent values fall back to the tool's own
  std::optional<double> temperature, top_p, min_p, repeat_penalty;
  std::optional<uint64_t> top_k;
  std::optional<bool> do_sample;
};

struct ChatSettings {
  std::string chat_template;          // Jinja source; empty when the model has none
  std::vector<uint32_t> stop_tokens;  // ids that end a turn (eos of generation settings and config)
};

// Names in the place of a scheme for files whose matrices have the codes and floats that their checkpoint
// had, each in a scheme that holds them; "-a8": with int8 activations where there are codes.
inline constexpr std::string_view kKeptScheme = "keep";
inline constexpr std::string_view kKeptInt8Scheme = "keep-a8";

struct QuantizationInfo {
  std::string scheme;            // the scheme asked for, e.g. "w4a8-g128", or one of the names above
  std::string head_scheme;       // scheme of the output head
  uint64_t kv_bits = 16;         // recommended KV precision
  std::string calibration_hash;  // XXH64 of the calibration text in hex; empty when none was used
  std::string tool_version;
  std::string command;  // the command line that made the file
};

struct TokenizerSettings {
  std::string kind;           // "byte-bpe" or "sentencepiece-bpe"
  std::string settings_json;  // small settings owned by engine/tokenizer, a JSON object as text
};

struct ModelHeader {
  std::string name;  // folder name of the source checkpoint
  Hyperparameters hyperparameters;
  QuantizationInfo quantization;
  TokenizerSettings tokenizer;
  ChatSettings chat;
  GenerationDefaults generation;
};

}  // namespace tessera
