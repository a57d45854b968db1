#include "backends/cpu/avx2/avx2.h"

namespace tessera::cpu {

const Kernels& avx2_kernels() {
  static const Kernels kernels{
      .name = "avx2",
      .code_tokens =
          SIZE_MAX,  // 8 products of codes fit 16-bit sums, bytes need a sign trick: codes win for any number
      .product_codes_g128 = avx2::product_codes_g128,
      .product_codes_w4 = avx2::product_codes_w4,
      .product_bytes = avx2::product_bytes,
      .expand_g128 = avx2::expand_g128,
      .expand_w4 = avx2::expand_w4,
      .product_f32 = avx2::product_f32,
      .product_f16 = avx2::product_f16,
      .product_bf16 = avx2::product_bf16,
      .rms_norm = avx2::rms_norm,
      .quantize_row = avx2::quantize_row,
      .silu_gate = avx2::silu_gate,
      .rotate_head = avx2::rotate_head,
      .expand_k8 = avx2::expand_k8,
      .expand_k4 = avx2::expand_k4,
      .expand_v8 = avx2::expand_v8,
      .expand_v4 = avx2::expand_v4,
      .maximum = avx2::maximum,
      .exponentials = avx2::exponentials,
      .scale_row = avx2::scale_row,
  };
  return kernels;
}

}  // namespace tessera::cpu
