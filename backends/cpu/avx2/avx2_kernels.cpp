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
      .table_int8 = avx2::kTableInt8,
      .table_bf16 = avx2::kTableBf16,
      .rms_norm = avx2::rms_norm,
      .quantize_row = avx2::quantize_row,
      .round_row = avx2::round_row,
      .silu_gate = avx2::silu_gate,
      .rotate_head = avx2::rotate_head,
      .maximum = avx2::maximum,
      .attention =
          {
              .split_query8 = avx2::split_query8,
              .split_query4 = avx2::split_query4,
              .score_keys8 = avx2::score_keys8,
              .score_keys4 = avx2::score_keys4,
              .powers = avx2::powers,
              .coarse_powers = avx2::coarse_powers,
              .split_weights8 = avx2::split_weights8,
              .split_weights4 = avx2::split_weights4,
              .add_values8 = avx2::add_values8,
              .add_values4 = avx2::add_values4,
          },
  };
  return kernels;
}

}  // namespace tessera::cpu
