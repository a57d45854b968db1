// Another scaling of positions than a model was stored with, so that it reads more than its own context.
#pragma once

#include <cstdint>
#include <optional>

#include "gguf-like-format/model_header.h"

namespace tessera {

// What llama.cpp's options of the same names say; what is not given follows from the rest.
struct RopeRequest {
  std::optional<RopeScalingKind> scaling;    // none, linear or yarn; linear where only a factor is given
  std::optional<double> factor;              // by which positions are divided
  std::optional<double> theta;               // instead of the model's own
  std::optional<uint64_t> original_context;  // what the model was trained on, for YaRN
  std::optional<uint64_t> context;           // tokens wanted

  bool any() const { return scaling || factor || theta || original_context; }
  // Whether a model like this is to be changed: it also is for a longer context alone where it says how.
  bool stretches(const Hyperparameters& h) const {
    return any() || (h.dynamic_ntk && h.model_head_dim() > 2 && context && *context > h.context);
  }
};

// The hyperparameters as requested, whose context is the one wanted, or else `factor` times the model's. A
// scaling that the model has is replaced where scaling or factor is given. Without a factor, it is what the
// wanted context needs. Throws std::invalid_argument with one line for a request that makes no sense.
Hyperparameters stretched(Hyperparameters h, const RopeRequest& request);

}  // namespace tessera
