// What gates, or rows without a gate, are passed through. Plain constants, which kernels may see: see
// backends/cpu/kernels/kernels.h.
#pragma once

#include <cstdint>

namespace tessera {

// silu(x) = x / (1 + e^-x), or GELU in its form with tanh (arXiv 1606.08415), x / (1 + e^-2u) with
// u = sqrt(2 / pi) (x + 0.044715 x^3), or relu(x) = max(x, 0).
enum class GateFunction : uint8_t { silu, gelu_tanh, relu };

// 2u = x (kGeluLinear + kGeluCubic x^2): 2 sqrt(2 / pi), and that times 0.044715.
inline constexpr float kGeluLinear = 1.5957691216057308f;
inline constexpr float kGeluCubic = 0.07135481627260025f;

}  // namespace tessera
