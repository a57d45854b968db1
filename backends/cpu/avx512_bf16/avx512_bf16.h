// Kernels of AVX-512 machines that also have AVX512-BF16, the dot product of bfloat16 pairs. Only called
// there.
#pragma once

#include "backends/cpu/kernels/kernels.h"

namespace tessera::cpu::avx512_bf16 {

void product_bf16(const FloatProduct& job);
extern const Bf16PairKernels kBf16Pairs;
extern const TableCodeKernels kLut2;  // of schemes with scales per group and bf16 activations
extern const TableCodeKernels kLut3;
extern const TableCodeKernels kLut4;
extern const TableCodeKernels kInt4;
extern const TableCodeKernels kInt8;
extern const TableCodeKernels kInt4m;
extern const TableCodeKernels kInt4k;
void product_expanded(const ExpandedProduct& job);

// Puts them in the place of the AVX-512 kernels.
void add_to(Kernels& kernels);

}  // namespace tessera::cpu::avx512_bf16
