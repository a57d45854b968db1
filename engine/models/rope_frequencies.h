// The rotation speed of each pair of a head's dimensions, with the scalings that stretch a model's context.
#pragma once

#include <cstddef>
#include <vector>

#include "gguf-like-format/model_header.h"

namespace tessera {

// rotary_dim / 2 angles per position in radians: theta^(-2i / rotary_dim), then scaled. Linear scaling
// divides positions, hence every angle, by the factor. Llama 3 scaling keeps wavelengths shorter than
// original_context / high_freq_factor, divides those longer than original_context / low_freq_factor by the
// factor and blends in between, linearly in original_context / wavelength. YaRN
// (arXiv 2309.00071) keeps pairs that rotate more than beta_fast times over original_context, divides those
// that rotate less than beta_slow times by the factor and blends in between, linearly in the pair's number,
// between whole pairs where whole_pairs says so. theta and factor must be positive, high_freq_factor above
// low_freq_factor, beta_fast above beta_slow.
std::vector<double> rope_inverse_frequencies(size_t rotary_dim, double theta, const RopeScaling& scaling);

}  // namespace tessera
