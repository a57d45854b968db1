#include "engine/models/stretched_context.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace tessera {

namespace {

// What Qwen's code does for a text of so many tokens, from its first one on: theta grows by
// alpha^(d / (d - 2)) with the size d of a head and alpha = 2^ceil(log2(tokens / context) + 1) - 1.
void set_dynamic_theta(uint64_t tokens, Hyperparameters& h) {
  const double times = static_cast<double>(tokens) / static_cast<double>(h.context);
  const double alpha = std::exp2(std::ceil(std::log2(times) + 1)) - 1;
  const auto size = static_cast<double>(h.model_head_dim());
  h.rope_theta *= std::pow(alpha, size / (size - 2));
  h.context = tokens;
}

}  // namespace

Hyperparameters stretched(Hyperparameters h, const RopeRequest& request) {
  if (!request.any()) {
    if (request.stretches(h)) set_dynamic_theta(*request.context, h);
    return h;
  }
  if (request.theta) h.rope_theta = *request.theta;
  const RopeScaling own = h.rope_scaling;
  const bool replaces = request.scaling || request.factor;
  const RopeScalingKind kind = request.scaling.value_or(RopeScalingKind::linear);
  if (request.original_context && !(replaces && kind == RopeScalingKind::yarn))
    throw std::invalid_argument("--yarn-orig-ctx: needs --rope-scaling yarn");
  if (replaces && kind == RopeScalingKind::none && request.factor && *request.factor != 1)
    throw std::invalid_argument("--rope-scale: has no meaning with --rope-scaling none");
  // What the model was trained on: with a scaling of its own, what that began from where it says so.
  uint64_t original = own.original_context != 0 ? own.original_context : h.context;
  if (own.kind == RopeScalingKind::linear)
    original = std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(h.context) / own.factor));
  original = request.original_context.value_or(original);
  double factor = 1;
  if (replaces && kind != RopeScalingKind::none) {
    const double wanted = static_cast<double>(request.context.value_or(h.context));
    factor = request.factor.value_or(std::max(1.0, wanted / static_cast<double>(original)));
  }
  if (replaces) {
    h.rope_scaling = RopeScaling();
    h.rope_scaling.kind = factor == 1 ? RopeScalingKind::none : kind;
    if (factor != 1) h.rope_scaling.factor = factor;
    if (h.rope_scaling.kind == RopeScalingKind::yarn) {
      h.rope_scaling.original_context = original;
      // The factor of arXiv 2309.00071 for the scores, half of it for each side.
      h.rope_scaling.attention_factor = factor > 1 ? 0.1 * std::log(factor) + 1 : 1;
    }
  }
  const auto reached = static_cast<uint64_t>(std::min(factor * static_cast<double>(original), 1e15));
  h.context = request.context.value_or(replaces ? std::max(h.context, reached) : h.context);
  return h;
}

}  // namespace tessera
