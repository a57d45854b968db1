// The AVX-512 kernels. Only called where the machine has AVX-512 F, BW, VL, DQ and VNNI.
#pragma once

#include "backends/cpu/kernels/kernels.h"

namespace tessera::cpu::avx512 {

// The parts, each defined in the file that holds its kernels.
extern const IntegerKernels kIntegerKernels;
extern const FloatKernels kFloatKernels;
extern const TableCodeKernels kLut2;  // of schemes with scales per group and int8 activations
extern const TableCodeKernels kLut3;
extern const TableCodeKernels kLut4;
extern const TableCodeKernels kInt4;
extern const TableCodeKernels kInt8;
extern const TableCodeKernels kInt4m;
extern const TableCodeKernels kInt4k;
void product_expanded(const ExpandedProduct& job);
extern const RowKernels kRowKernels;
extern const AttentionRowKernels kAttentionRows;
extern const AttentionProductKernels kAttentionProducts;
extern const LimitLoops kLimitLoops;

// All of them.
Kernels kernels();

}  // namespace tessera::cpu::avx512
