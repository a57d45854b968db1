#include "engine/models/rope_frequencies.h"

#include <cmath>
#include <numbers>

namespace tessera {

namespace {

double llama3_scaled(double frequency, const RopeScaling& scaling) {
  // Rotations this pair completes over the context the model was trained with.
  const double turns = static_cast<double>(scaling.original_context) * frequency / (2 * std::numbers::pi);
  if (turns > scaling.high_freq_factor) return frequency;
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  const double keep =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return keep * frequency + (1 - keep) * frequency / scaling.factor;
}

}  // namespace

std::vector<double> rope_inverse_frequencies(size_t rotary_dim, double theta, const RopeScaling& scaling) {
  std::vector<double> frequencies(rotary_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double plain = std::pow(theta, -static_cast<double>(2 * i) / static_cast<double>(rotary_dim));
    switch (scaling.kind) {
      case RopeScalingKind::none:
        frequencies[i] = plain;
        break;
      case RopeScalingKind::linear:
        frequencies[i] = plain / scaling.factor;
        break;
      case RopeScalingKind::llama3:
        frequencies[i] = llama3_scaled(plain, scaling);
        break;
    }
  }
  return frequencies;
}

}  // namespace tessera
