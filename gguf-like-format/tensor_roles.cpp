#include "gguf-like-format/tensor_roles.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace tessera {

namespace {

using Shape = std::vector<uint64_t>;

uint64_t query_rows(const Hyperparameters& h) { return h.query_heads * h.head_dim; }
uint64_t kv_rows(const Hyperparameters& h) { return h.kv_heads * h.head_dim; }

Shape hidden_vector(const Hyperparameters& h) { return {h.hidden}; }
Shape query_vector(const Hyperparameters& h) { return {query_rows(h)}; }
Shape kv_vector(const Hyperparameters& h) { return {kv_rows(h)}; }
Shape ffn_vector(const Hyperparameters& h) { return {h.ffn}; }
Shape head_vector(const Hyperparameters& h) { return {h.head_dim}; }
uint64_t embedding_width(const Hyperparameters& h) {
  return h.embedding_width != 0 ? h.embedding_width : h.hidden;
}
Shape vocabulary_matrix(const Hyperparameters& h) { return {h.vocabulary, embedding_width(h)}; }
Shape context_matrix(const Hyperparameters& h) { return {h.context, h.hidden}; }
Shape embedding_projection(const Hyperparameters& h) { return {h.hidden, embedding_width(h)}; }
Shape head_projection(const Hyperparameters& h) { return {embedding_width(h), h.hidden}; }
Shape query_matrix(const Hyperparameters& h) { return {query_rows(h), h.hidden}; }
Shape kv_matrix(const Hyperparameters& h) { return {kv_rows(h), h.hidden}; }
Shape output_matrix(const Hyperparameters& h) { return {h.hidden, query_rows(h)}; }
Shape ffn_matrix(const Hyperparameters& h) { return {h.ffn, h.hidden}; }
Shape down_matrix(const Hyperparameters& h) { return {h.hidden, h.ffn}; }

bool always(const Hyperparameters&) { return true; }
bool with_qkv_bias(const Hyperparameters& h) { return h.qkv_bias; }
bool with_rotated_table(const Hyperparameters& h) { return h.rotated_table; }
bool with_output_bias(const Hyperparameters& h) { return h.output_bias; }

constexpr std::string_view kHidden = "[hidden]";
constexpr std::string_view kQueries = "[query_heads * head_dim]";
constexpr std::string_view kKeys = "[kv_heads * head_dim]";
constexpr std::string_view kKeyMatrix = "[kv_heads * head_dim, hidden]";
constexpr std::string_view kFfnMatrix = "[ffn, hidden]";
constexpr std::string_view kVocabularyMatrix = "[vocabulary, hidden]";

using K = RoleKind;
const std::array kRows = {
    RoleRow{Role::token_embedding, K::embedding, "token_embedding", "embedding", false, kVocabularyMatrix,
            vocabulary_matrix, always},
    RoleRow{Role::position_embedding, K::embedding, "position_embedding", "embedding", false,
            "[context, hidden]", context_matrix, always},
    RoleRow{Role::embedding_projection, K::matrix, "embedding_projection", "projection", false,
            "[hidden, embedding_width]", embedding_projection, always},
    RoleRow{Role::attention_norm, K::norm, "attention_norm", "norm", true, kHidden, hidden_vector, always},
    RoleRow{Role::attention_norm_bias, K::bias, "attention_norm_bias", "bias", true, kHidden, hidden_vector,
            always},
    RoleRow{Role::q, K::matrix, "q", "q", true, "[query_heads * head_dim, hidden]", query_matrix, always},
    RoleRow{Role::k, K::matrix, "k", "k", true, kKeyMatrix, kv_matrix, always},
    RoleRow{Role::v, K::matrix, "v", "v", true, kKeyMatrix, kv_matrix, always},
    RoleRow{Role::q_bias, K::bias, "q_bias", "bias", true, kQueries, query_vector, with_qkv_bias},
    RoleRow{Role::k_bias, K::bias, "k_bias", "bias", true, kKeys, kv_vector, with_qkv_bias},
    RoleRow{Role::v_bias, K::bias, "v_bias", "bias", true, kKeys, kv_vector, with_qkv_bias},
    RoleRow{Role::q_norm, K::norm, "q_norm", "norm", true, "[head_dim]", head_vector, always},
    RoleRow{Role::k_norm, K::norm, "k_norm", "norm", true, "[head_dim]", head_vector, always},
    RoleRow{Role::o, K::matrix, "o", "o", true, "[hidden, query_heads * head_dim]", output_matrix, always},
    RoleRow{Role::o_bias, K::bias, "o_bias", "bias", true, kHidden, hidden_vector, with_output_bias},
    RoleRow{Role::attention_output_norm, K::norm, "attention_output_norm", "norm", true, kHidden,
            hidden_vector, always},
    RoleRow{Role::ffn_norm, K::norm, "ffn_norm", "norm", true, kHidden, hidden_vector, always},
    RoleRow{Role::ffn_norm_bias, K::bias, "ffn_norm_bias", "bias", true, kHidden, hidden_vector, always},
    RoleRow{Role::gate, K::matrix, "gate", "gate", true, kFfnMatrix, ffn_matrix, always},
    RoleRow{Role::up, K::matrix, "up", "up", true, kFfnMatrix, ffn_matrix, always},
    RoleRow{Role::up_bias, K::bias, "up_bias", "bias", true, "[ffn]", ffn_vector, always},
    RoleRow{Role::down, K::matrix, "down", "down", true, "[hidden, ffn]", down_matrix, always},
    RoleRow{Role::down_bias, K::bias, "down_bias", "bias", true, kHidden, hidden_vector, always},
    RoleRow{Role::ffn_output_norm, K::norm, "ffn_output_norm", "norm", true, kHidden, hidden_vector, always},
    RoleRow{Role::qkv_order, K::order, "qkv_order", "order", true, kHidden, hidden_vector, always},
    RoleRow{Role::o_order, K::order, "o_order", "order", true, kQueries, query_vector, always},
    RoleRow{Role::gate_up_order, K::order, "gate_up_order", "order", true, kHidden, hidden_vector, always},
    RoleRow{Role::down_order, K::order, "down_order", "order", true, "[ffn]", ffn_vector, always},
    RoleRow{Role::output_norm, K::norm, "output_norm", "norm", false, kHidden, hidden_vector, always},
    RoleRow{Role::output_gain, K::norm, "output_gain", "norm", false, kHidden, hidden_vector,
            with_rotated_table},
    RoleRow{Role::output_norm_bias, K::bias, "output_norm_bias", "bias", false, kHidden, hidden_vector,
            always},
    RoleRow{Role::head_projection, K::matrix, "head_projection", "projection", false,
            "[embedding_width, hidden]", head_projection, always},
    RoleRow{Role::output_head, K::head, "output_head", "head", false, kVocabularyMatrix, vocabulary_matrix,
            always},
};

struct MatrixOrder {
  Role matrix;
  Role order;
};
constexpr std::array kOrders = {
    MatrixOrder{Role::q, Role::qkv_order},        MatrixOrder{Role::k, Role::qkv_order},
    MatrixOrder{Role::v, Role::qkv_order},        MatrixOrder{Role::o, Role::o_order},
    MatrixOrder{Role::gate, Role::gate_up_order}, MatrixOrder{Role::up, Role::gate_up_order},
    MatrixOrder{Role::down, Role::down_order},
};

}  // namespace

std::span<const RoleRow> role_rows() { return kRows; }

const RoleRow& role_row(Role role) {
  return *std::find_if(kRows.begin(), kRows.end(), [role](const RoleRow& row) { return row.role == role; });
}

const RoleRow* find_role(std::string_view name, bool in_layer) {
  const auto row = std::find_if(kRows.begin(), kRows.end(), [&](const RoleRow& each) {
    return each.name == name && each.in_layer == in_layer;
  });
  return row == kRows.end() ? nullptr : &*row;
}

std::string_view role_label(Role role) { return role_row(role).label; }

std::optional<Role> order_role(Role matrix) {
  const auto row = std::find_if(kOrders.begin(), kOrders.end(),
                                [matrix](const MatrixOrder& each) { return each.matrix == matrix; });
  return row == kOrders.end() ? std::nullopt : std::optional(row->order);
}

std::string tensor_name(Role role, uint64_t layer) {
  const RoleRow& row = role_row(role);
  return row.in_layer ? fmt::format("layers.{}.{}", layer, row.name) : std::string(row.name);
}

}  // namespace tessera
