// The kernels of one instruction set: everything that the cpu backend computes in vectors. The folder of an
// instruction set fills one such table (backends/cpu/instruction_sets.h lists them).
//
// Only raw pointers and plain structs here: kernel files are compiled for newer machines than the rest, so
// nothing inline that the linker might share may come with them.
#pragma once

#include "backends/cpu/kernels/attention_kernels.h"
#include "backends/cpu/kernels/float_kernels.h"
#include "backends/cpu/kernels/integer_kernels.h"
#include "backends/cpu/kernels/limit_loops.h"
#include "backends/cpu/kernels/row_kernels.h"
#include "backends/cpu/kernels/table_kernels.h"

namespace tessera::cpu {

struct Kernels {
  const char* name;  // as the user reads it: "avx512-vnni-bf16"
  IntegerKernels integers;
  FloatKernels floats;
  TableKernels table_int8;  // table schemes with int8 activations
  TableKernels table_bf16;  // and with bf16 activations
  RowKernels rows;
  AttentionRowKernels attention_rows;
  AttentionProductKernels attention_products;
  LimitLoops limits;
};

}  // namespace tessera::cpu
