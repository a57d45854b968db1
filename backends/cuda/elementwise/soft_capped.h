// A value bent towards a cap: cap * tanh(x / cap), with tanh(x) = 1 - 2 / (1 + e^2x).
#pragma once

#include "backends/cuda/device/kernel_instructions.h"

namespace tessera::cuda {

TESSERA_DEVICE float soft_capped(float x, float cap) {
  const float power = exponential(multiply_rn(x, divide_rn(2.0f, cap)));
  return add_rn(cap, -divide_rn(multiply_rn(2.0f, cap), add_rn(1.0f, power)));
}

}  // namespace tessera::cuda
