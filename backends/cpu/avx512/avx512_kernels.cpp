#include "backends/cpu/avx512/avx512.h"

namespace tessera::cpu {

const Kernels& avx512_kernels(bool with_bf16) {
  static constexpr Kernels kKernels{
      .name = "avx512-vnni",
      .code_tokens = 64,  // expanding a panel costs as much as multiplying it with about nine tokens
      .product_codes_g128 = avx512::product_codes_g128,
      .product_codes_w4 = avx512::product_codes_w4,
      .product_bytes = avx512::product_bytes,
      .expand_g128 = avx512::expand_g128,
      .expand_w4 = avx512::expand_w4,
      .product_f32 = avx512::product_f32,
      .product_f16 = avx512::product_f16,
      .product_bf16 = avx512::product_bf16,
      .rms_norm = avx512::rms_norm,
      .quantize_row = avx512::quantize_row,
      .silu_gate = avx512::silu_gate,
      .rotate_head = avx512::rotate_head,
      .maximum = avx512::maximum,
      .attention =
          {
              .split_query8 = avx512::split_query8,
              .split_query4 = avx512::split_query4,
              .score_keys8 = avx512::score_keys8,
              .score_keys4 = avx512::score_keys4,
              .powers = avx512::powers,
              .split_weights8 = avx512::split_weights8,
              .split_weights4 = avx512::split_weights4,
              .add_values8 = avx512::add_values8,
              .add_values4 = avx512::add_values4,
          },
  };
  static constexpr Kernels kBf16Kernels = [] {
    Kernels kernels = kKernels;
    kernels.name = "avx512-vnni-bf16";
    kernels.product_bf16 = avx512::product_bf16_dot;
    return kernels;
  }();
  return with_bf16 ? kBf16Kernels : kKernels;
}

}  // namespace tessera::cpu
