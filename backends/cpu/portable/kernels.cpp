#include "backends/cpu/portable/portable.h"

namespace tessera::cpu::portable {

Kernels kernels() {
  return {
      .name = "portable",
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

}  // namespace tessera::cpu::portable
