// Products of matrices that are both bfloat16: one dot-product instruction where the layers' kernel, whose
// activations are exact, needs two. Only called where the machine has AVX512-BF16.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cpu::avx512 {

// y[t][n] = sum_k w[n][k] x[t][k], plus what y held when accumulate, over pairs of columns.
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

void product_bf16_pairs(const Bf16PairProduct& job);

// A row of floats rounded to bf16 pairs, half to even; an odd last column is paired with 0. Subnormal results
// become 0.
void round_to_bf16_pairs(const float* row, size_t columns, uint32_t* pairs);

}  // namespace tessera::cpu::avx512
