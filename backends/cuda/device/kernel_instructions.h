// The functions that kernels are written in, one for each instruction: PTX for nvcc, the emulator's where
// TESSERA_CUDA_EMULATED is defined. Other host code gets neither, only the types that kernels and host share.
#pragma once

#if defined(__CUDACC__)
#include "backends/cuda/ptx/ptx_instructions.h"
// These use the macros of the header above.
#include "backends/cuda/ptx/ptx_async_copies.h"
#include "backends/cuda/ptx/ptx_warpgroup.h"
#define TESSERA_HAS_INSTRUCTIONS 1
#elif defined(TESSERA_CUDA_EMULATED)
#include "backends/cuda/emulator/emulated_instructions.h"
#define TESSERA_HAS_INSTRUCTIONS 1
#else
#define TESSERA_BOTH
#endif
