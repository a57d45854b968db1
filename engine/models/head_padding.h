// Heads of sizes that kernels do not take are made longer by zeros.
#pragma once

#include <cstdint>

#include "gguf-like-format/hyperparameter_fields.h"

namespace tessera {

// head_dim as the model means it, padded to a multiple of the step that kernels need.
inline void set_head_dim(uint64_t head_dim, Hyperparameters& h) {
  constexpr uint64_t step = header_limits::kHeadDimStep;
  h.head_dim = (head_dim + step - 1) / step * step;
  h.head_padding = h.head_dim - head_dim;
}

}  // namespace tessera
