#include "backends/cpu/portable/portable.h"

namespace tessera::cpu {

const Kernels& portable_kernels() {
  static const Kernels kernels{
      .name = "portable",
      .code_tokens = 8,  // unpacking a code again for every token costs more than a byte load
      .product_codes_g128 = portable::product_codes_g128,
      .product_codes_w4 = portable::product_codes_w4,
      .product_bytes = portable::product_bytes,
      .expand_g128 = portable::expand_g128,
      .expand_w4 = portable::expand_w4,
      .product_f32 = portable::product_f32,
      .product_f16 = portable::product_f16,
      .product_bf16 = portable::product_bf16,
      .rms_norm = portable::rms_norm,
      .quantize_row = portable::quantize_row,
      .silu_gate = portable::silu_gate,
      .rotate_head = portable::rotate_head,
      .expand_k8 = portable::expand_k8,
      .expand_k4 = portable::expand_k4,
      .expand_v8 = portable::expand_v8,
      .expand_v4 = portable::expand_v4,
      .maximum = portable::maximum,
      .exponentials = portable::exponentials,
      .scale_row = portable::scale_row,
  };
  return kernels;
}

}  // namespace tessera::cpu
