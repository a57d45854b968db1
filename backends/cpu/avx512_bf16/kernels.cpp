#include "backends/cpu/avx512_bf16/avx512_bf16.h"

namespace tessera::cpu::avx512_bf16 {

namespace {

// Expanding begins to pay late, since a line of codes costs few instructions beside the products of one tile.
constexpr size_t kTableCodeTokens = 256;

}  // namespace

void add_to(Kernels& kernels) {
  kernels.floats.product_bf16 = product_bf16;
  kernels.floats.bf16_pairs = kBf16Pairs;
  kernels.table_bf16 = {
      .code_tokens = kTableCodeTokens,
      .codes = {kLut2, kLut3, kLut4, kInt4, kInt8, kInt4m, kInt4k},
      .product_expanded = product_expanded,
  };
}

}  // namespace tessera::cpu::avx512_bf16
