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
      .table_int8 = portable::kTableInt8,
      .table_bf16 = portable::kTableBf16,
      .rms_norm = portable::rms_norm,
      .quantize_row = portable::quantize_row,
      .round_row = portable::round_row,
      .silu_gate = portable::silu_gate,
      .rotate_head = portable::rotate_head,
      .maximum = portable::maximum,
      .attention =
          {
              .split_query8 = portable::split_query8,
              .split_query4 = portable::split_query4,
              .score_keys8 = portable::score_keys8,
              .score_keys4 = portable::score_keys4,
              .powers = portable::powers,
              .coarse_powers = portable::powers,
              .split_weights8 = portable::split_weights8,
              .split_weights4 = portable::split_weights4,
              .add_values8 = portable::add_values8,
              .add_values4 = portable::add_values4,
          },
  };
  return kernels;
}

}  // namespace tessera::cpu
