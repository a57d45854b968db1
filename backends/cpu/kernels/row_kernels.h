// What is computed row by row between products. Only plain types, for the reason given in kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/gate_function.h"

namespace tessera::cpu {

struct RowKernels {
  // sum = x + multiplier * added where added is given, rounded twice; y = sum / sqrt(mean(sum^2) + epsilon) *
  // gain, all [n]. y may be x.
  void (*rms_norm)(const float* x, const float* added, float multiplier, float* sum, const float* gain,
                   float epsilon, size_t n, float* y);
  // The layer norm of the same sum, less its mean and with a bias [n].
  void (*layer_norm)(const float* x, const float* added, float multiplier, float* sum, const float* gain,
                     const float* bias, float epsilon, size_t n, float* y);
  // n floats to a q8 row (graph/q8_row.h) or to a bf16 row (graph/bf16_row.h).
  void (*quantize_row)(const float* x, size_t n, uint8_t* q8_row);
  void (*round_row)(const float* x, size_t n, uint8_t* bf16_row);
  // y[i] = gate[i] / (1 + e^-gate[i]) * up[i]; without the factor where up is null.
  void (*silu_gate)(const float* gate, const float* up, size_t n, float* y);
  // The same with GELU, as GateFunction::gelu_tanh has it.
  void (*gelu_gate)(const float* gate, const float* up, size_t n, float* y);
  // y[i] = cap * tanh(x[i] / cap); y may be x.
  void (*soft_cap)(const float* x, float cap, size_t n, float* y);
  // Rotates one head of 2 * half elements: pairs (i, i + half) by the angles whose cosines and sines are
  // given, [half] each. y may be x.
  void (*rotate_head)(const float* x, const float* cosines, const float* sines, size_t half, float* y);
  // The largest of n >= 1 values.
  float (*maximum)(const float* values, size_t n);
};

}  // namespace tessera::cpu
