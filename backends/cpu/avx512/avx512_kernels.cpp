#include "backends/cpu/avx512/avx512.h"

namespace tessera::cpu {

namespace {

// Expanding begins to pay late, since a line of codes costs few instructions beside the products of one tile.
constexpr size_t kTableCodeTokens = 96;
constexpr size_t kTableCodeTokensBf16 = 256;

constexpr TableKernels kTableInt8{
    .code_tokens = kTableCodeTokens,
    .product = {avx512::product_lut2, avx512::product_lut3, avx512::product_lut4, avx512::product_int4},
    .expand = {avx512::expand_lut2, avx512::expand_lut3, avx512::expand_lut4, avx512::expand_int4},
    .product_expanded = avx512::product_expanded,
};
constexpr TableKernels kTableInt8Vbmi{
    .code_tokens = kTableCodeTokens,
    .product = {avx512::product_lut2_vbmi, avx512::product_lut3_vbmi, avx512::product_lut4_vbmi,
                avx512::product_int4},
    .expand = {avx512::expand_lut2_vbmi, avx512::expand_lut3_vbmi, avx512::expand_lut4_vbmi,
               avx512::expand_int4},
    .product_expanded = avx512::product_expanded,
};
constexpr TableKernels kTableBf16{
    .code_tokens = kTableCodeTokensBf16,
    .product = {avx512::product_lut2_bf16, avx512::product_lut3_bf16, avx512::product_lut4_bf16,
                avx512::product_int4_bf16},
    .expand = {avx512::expand_lut2_bf16, avx512::expand_lut3_bf16, avx512::expand_lut4_bf16,
               avx512::expand_int4_bf16},
    .product_expanded = avx512::product_expanded_bf16,
};

Kernels make_kernels(Avx512Extensions extensions) {
  Kernels kernels{
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
      .table_int8 = kTableInt8,
      .table_bf16 = avx2_kernels().table_bf16,  // in f32, where pairs of bfloat16 cannot be multiplied
      .rms_norm = avx512::rms_norm,
      .quantize_row = avx512::quantize_row,
      .round_row = avx512::round_row,
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
              .coarse_powers = avx512::coarse_powers,
              .split_weights8 = avx512::split_weights8,
              .split_weights4 = avx512::split_weights4,
              .add_values8 = avx512::add_values8,
              .add_values4 = avx512::add_values4,
          },
  };
  if (extensions.vbmi) {
    kernels.name = "avx512-vnni-vbmi";
    kernels.table_int8 = kTableInt8Vbmi;
  }
  if (extensions.bf16) {
    kernels.name = extensions.vbmi ? "avx512-vnni-vbmi-bf16" : "avx512-vnni-bf16";
    kernels.bf16_pairs = true;
    kernels.product_bf16 = avx512::product_bf16_dot;
    kernels.table_bf16 = kTableBf16;
  }
  return kernels;
}

}  // namespace

const Kernels& avx512_kernels(Avx512Extensions extensions) {
  static const Kernels kTables[2][2] = {
      {make_kernels({}), make_kernels({.vbmi = true})},
      {make_kernels({.bf16 = true}), make_kernels({.bf16 = true, .vbmi = true})},
  };
  return kTables[extensions.bf16 ? 1 : 0][extensions.vbmi ? 1 : 0];
}

}  // namespace tessera::cpu
