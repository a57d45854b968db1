#include "backends/cpu/avx512_vbmi/avx512_vbmi.h"

namespace tessera::cpu::avx512_vbmi {

void add_to(Kernels& kernels) {
  kernels.table_int8.codes[TableCodes::kLut2] = kLut2;
  kernels.table_int8.codes[TableCodes::kLut3] = kLut3;
  kernels.table_int8.codes[TableCodes::kLut4] = kLut4;
}

}  // namespace tessera::cpu::avx512_vbmi
