// The instructions that kernels are written in: those of the device for nvcc, those of the emulator in
// tests/emulator where TESSERA_CUDA_EMULATED is defined. Host code sees neither, only the types that cross
// the border.
#pragma once

#if defined(__CUDACC__)
#include "backends/cuda/ptx/ptx_instructions.h"
// after the macros
#include "backends/cuda/ptx/ptx_async_copies.h"
#include "backends/cuda/ptx/ptx_warpgroup.h"
#define TESSERA_HAS_INSTRUCTIONS 1
#elif defined(TESSERA_CUDA_EMULATED)
#include "backends/cuda/emulator/emulated_instructions.h"
#define TESSERA_HAS_INSTRUCTIONS 1
#else
#define TESSERA_BOTH
#endif
