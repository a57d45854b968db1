// Products of float activations with matrices of floats. Raw pointers and plain structs only, for the reason
// given in kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu {

// One float product: y[t][n] = sum_k w[n][k] x[t][k] (+ bias[n], or + y[t][n] when accumulate).
struct FloatProduct {
  const void* panels;   // f32, f16 or bf16 panels
  size_t panel_stride;  // bytes
  size_t rows;
  size_t columns;  // of x; a bf16 panel may hold one more, zero, column
  const float* x;
  size_t x_stride;  // floats
  size_t tokens;
  const float* bias;  // [rows] or null
  float* y;
  size_t y_stride;  // floats
  bool accumulate;
};

// The same where activations are bfloat16 too, over pairs of columns.
struct Bf16PairProduct {
  const uint32_t* panels;  // bf16 panels (tile_layout.h), one dword for each row and pair
  size_t panel_stride;     // dwords
  size_t rows;             // of w; the last panel may be partly used
  size_t pairs;
  const uint32_t* x;  // rows of pairs
  size_t x_stride;    // dwords
  size_t tokens;
  float* y;
  size_t y_stride;  // floats
  bool accumulate;
};

// Null where the machine has no dot product of bfloat16 pairs.
struct Bf16PairKernels {
  void (*product)(const Bf16PairProduct&);
  // A row of floats rounded to bf16 pairs, half to even; an odd last column is paired with 0. Subnormal
  // results become 0.
  void (*round_row)(const float* row, size_t columns, uint32_t* pairs);
};

using FloatKernel = void (*)(const FloatProduct&);

// Products with panels of each storage type.
struct FloatKernels {
  FloatKernel product_f32;
  FloatKernel product_f16;
  FloatKernel product_bf16;
  Bf16PairKernels bf16_pairs;
};

}  // namespace tessera::cpu
