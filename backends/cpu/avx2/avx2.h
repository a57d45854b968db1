// The AVX2 kernels. Only called where the machine has AVX2, FMA and F16C.
#pragma once

#include "backends/cpu/kernels/kernels.h"

namespace tessera::cpu::avx2 {

// The parts, each defined in the file that holds its kernels.
extern const IntegerKernels kIntegerKernels;
extern const FloatKernels kFloatKernels;
extern const TableKernels kTableInt8;
extern const TableKernels kTableBf16;
extern const RowKernels kRowKernels;
extern const AttentionRowKernels kAttentionRows;
extern const AttentionProductKernels kAttentionProducts;
extern const LimitLoops kLimitLoops;

// All of them.
Kernels kernels();

}  // namespace tessera::cpu::avx2
