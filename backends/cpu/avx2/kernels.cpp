#include "backends/cpu/avx2/avx2.h"

namespace tessera::cpu::avx2 {

Kernels kernels() {
  return {
      .name = "avx2",
      .integers = kIntegerKernels,
      .floats = kFloatKernels,
      .table_int8 = kTableInt8,
      .table_bf16 = kTableBf16,
      .rows = kRowKernels,
      .attention_rows = kAttentionRows,
      .attention_products = kAttentionProducts,
      .limits = kLimitLoops,
  };
}

}  // namespace tessera::cpu::avx2
