// The tensors that a .tess file of a decoder can hold: what each is for, its name and its shape. The format's
// checks, the importers and the graph builder all read this one table.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

enum class Role : uint8_t {
  token_embedding,
  position_embedding,
  embedding_projection,  // from the width of embeddings to hidden
  attention_norm,
  attention_norm_bias,
  q,
  k,
  v,
  q_bias,
  k_bias,
  v_bias,
  q_norm,  // of every query head before rotation
  k_norm,  // of every key head before rotation
  o,
  o_bias,
  attention_output_norm,  // of what attention adds to the residual stream
  ffn_norm,
  ffn_norm_bias,
  gate,
  up,
  up_bias,
  down,
  down_bias,
  ffn_output_norm,  // of what the feed-forward part adds to the residual stream
  // Orders of columns. The matrices that read one input share one, as the input is put in order once for all.
  qkv_order,      // of q, k and v
  o_order,        // of o
  gate_up_order,  // of gate and up
  down_order,     // of down
  output_norm,
  output_gain,  // of the output norm in a file with rotated tables
  output_norm_bias,
  head_projection,  // from hidden to the width of embeddings
  output_head,
};

// What roles have in common where they are treated alike.
enum class RoleKind : uint8_t { embedding, norm, bias, matrix, head, order };

struct RoleRow {
  Role role;
  RoleKind kind;
  std::string_view name;        // in a .tess file; within its layer for a tensor that every layer has: "q"
  std::string_view label;       // in summaries, one for all norms and one for all biases
  bool in_layer;                // stored as "layers.N.NAME"
  std::string_view shape_text;  // "[query_heads * head_dim, hidden]"
  std::vector<uint64_t> (*shape)(const Hyperparameters&);  // of one or two dimensions
  // Whether a file of these hyperparameters may hold it; false only for biases that the header denies.
  bool (*allowed)(const Hyperparameters&);

  // Of its elements, where it is a vector.
  Scheme vector_scheme() const { return kind == RoleKind::order ? Scheme::u32 : Scheme::f32; }
};

std::span<const RoleRow> role_rows();  // in the order in which tensors are stored
const RoleRow& role_row(Role role);
// The role that a tensor's name within its layer, or outside of layers, stands for; null for other names.
const RoleRow* find_role(std::string_view name, bool in_layer);
std::string_view role_label(Role role);
// The order that the columns of a role's matrix are stored in where a file holds one: stored column i is
// column order[i] of what the matrix reads. Nothing for roles whose columns always lie as they are.
std::optional<Role> order_role(Role matrix);

// "layers.3.q", "output_norm"; layer counts only for roles in layers.
std::string tensor_name(Role role, uint64_t layer);

}  // namespace tessera
