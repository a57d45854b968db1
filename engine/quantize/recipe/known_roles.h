// Which tensors the recipe knows how to treat.
#pragma once

#include <span>
#include <string>

#include "engine/quantize/plan/weight_plan.h"
#include "gguf-like-format/tensor_roles.h"

namespace tessera::quantize {

// Whether the steps know what a tensor of this role is for: whatever rotates, scales or reorders around it
// must be right for it, too.
bool is_known_role(Role role);

// Throws FileError, naming the first tensor whose role the recipe does not know and the checkpoint's folder.
void refuse_unknown_roles(const std::string& folder, std::span<const PlannedWeight> plan);

}  // namespace tessera::quantize
