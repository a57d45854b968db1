#include "backends/cpu/avx2/avx2.h"
#include "backends/cpu/avx512/avx512.h"

namespace tessera::cpu::avx512 {

namespace {

// Expanding begins to pay late, since a line of codes costs few instructions beside the products of one tile.
constexpr size_t kTableCodeTokens = 96;

}  // namespace

Kernels kernels() {
  return {
      .name = "avx512-vnni",
      .integers = kIntegerKernels,
      .floats = kFloatKernels,
      .table_int8 =
          {
              .code_tokens = kTableCodeTokens,
              .codes = {kLut2, kLut3, kLut4, kInt4, kInt8, kInt4m, kInt4k},
              .product_expanded = product_expanded,
          },
      .table_bf16 = avx2::kTableBf16,  // in f32, where pairs of bfloat16 cannot be multiplied
      .rows = kRowKernels,
      .attention_rows = kAttentionRows,
      .attention_products = kAttentionProducts,
      .limits = kLimitLoops,
  };
}

}  // namespace tessera::cpu::avx512
