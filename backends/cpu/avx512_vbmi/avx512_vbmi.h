// Kernels of AVX-512 machines that also have VBMI, which looks bytes up in tables of 64. Only called there.
#pragma once

#include "backends/cpu/kernels/kernels.h"

namespace tessera::cpu::avx512_vbmi {

extern const TableCodeKernels kLut2;  // of table schemes with int8 activations
extern const TableCodeKernels kLut3;
extern const TableCodeKernels kLut4;

// Puts them in the place of the AVX-512 kernels.
void add_to(Kernels& kernels);

}  // namespace tessera::cpu::avx512_vbmi
