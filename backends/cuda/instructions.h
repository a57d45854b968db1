// The instructions that kernels are written in: those of the device for nvcc, those of the emulator in
// tests/simt where TESSERA_SIMT is defined. Host code sees neither, only the types that cross the border.
#pragma once

#if defined(__CUDACC__)
#include "backends/cuda/ptx/instructions.h"
// after the macros
#include "backends/cuda/ptx/async_copies.h"
#include "backends/cuda/ptx/warpgroup.h"
#define TESSERA_HAS_INSTRUCTIONS 1
#elif defined(TESSERA_SIMT)
#include "tests/simt/instructions.h"
#define TESSERA_HAS_INSTRUCTIONS 1
#else
#define TESSERA_BOTH
#endif
