#include "engine/models/rope_frequencies.h"

#include <algorithm>
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

// The pair, counted in fractions, that rotates so often over the original context.
double pair_of_rotations(double rotations, size_t rotary_dim, double theta, const RopeScaling& scaling) {
  const double wavelength =
      static_cast<double>(scaling.original_context) / (rotations * 2 * std::numbers::pi);
  return static_cast<double>(rotary_dim) * std::log(wavelength) / (2 * std::log(theta));
}

// What is left of each pair's own speed, from 1 for fast pairs to 0 for slow ones.
double yarn_share(size_t pair, size_t rotary_dim, double theta, const RopeScaling& scaling) {
  double first = pair_of_rotations(scaling.beta_fast, rotary_dim, theta, scaling);
  double last = pair_of_rotations(scaling.beta_slow, rotary_dim, theta, scaling);
  if (scaling.whole_pairs) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, static_cast<double>(rotary_dim) - 1);
  if (first == last) last += 0.001;
  return 1 - std::clamp((static_cast<double>(pair) - first) / (last - first), 0.0, 1.0);
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
      case RopeScalingKind::yarn: {
        const double share = yarn_share(i, rotary_dim, theta, scaling);
        frequencies[i] = plain / scaling.factor * (1 - share) + plain * share;
        break;
      }
    }
  }
  return frequencies;
}

}  // namespace tessera
