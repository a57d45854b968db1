#include "engine/quantize/recipe/known_roles.h"

#include <fmt/format.h>

#include "gguf-like-format/file_error.h"

namespace tessera::quantize {

bool is_known_role(Role role) {
  switch (role) {
    case Role::token_embedding:
    case Role::position_embedding:
    case Role::embedding_projection:
    case Role::attention_norm:
    case Role::attention_norm_bias:
    case Role::q:
    case Role::k:
    case Role::v:
    case Role::q_bias:
    case Role::k_bias:
    case Role::v_bias:
    case Role::q_norm:
    case Role::k_norm:
    case Role::o:
    case Role::o_bias:
    case Role::attention_output_norm:
    case Role::ffn_norm:
    case Role::ffn_norm_bias:
    case Role::gate:
    case Role::up:
    case Role::up_bias:
    case Role::down:
    case Role::down_bias:
    case Role::ffn_output_norm:
    case Role::output_norm:
    case Role::output_gain:
    case Role::output_norm_bias:
    case Role::head_projection:
    case Role::output_head:
      return true;
    default:  // a new role is refused until someone has gone through the steps with it
      return false;
  }
}

void refuse_unknown_roles(const std::string& folder, std::span<const PlannedWeight> plan) {
  for (const PlannedWeight& weight : plan)
    if (!is_known_role(weight.expected.role))
      throw FileError(
          fmt::format("{}: tensor \"{}\": expected one whose role the recipe knows, found another", folder,
                      weight.expected.source.name));
}

}  // namespace tessera::quantize
