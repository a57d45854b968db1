// Device functions of one PTX instruction each, for nvcc: products of a whole warpgroup (four warps) on
// sm_90a. emulator/emulated_warpgroup.h has the same functions for the host.
#pragma once

#include <cstdint>

namespace tessera::cuda {

// Only sm_90a has them: kernels that use them have no body for other targets.
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kHasWarpgroups = false;
#else
inline constexpr bool kHasWarpgroups = true;
#endif

// Sets the number of registers of every thread of the warpgroup, to fewer or to more than before.
template <unsigned kRegisters>
TESSERA_DEVICE void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <unsigned kRegisters>
TESSERA_DEVICE void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Orders the warpgroup's register accesses before the products that follow; needed whenever anything but
// products has used those registers.
TESSERA_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Closes the open group of products.
TESSERA_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most the kBatchesLeft youngest closed groups are unfinished. Registers and the tile of B of
// unfinished products must not be accessed.
template <unsigned kBatchesLeft>
TESSERA_DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kBatchesLeft) : "memory");
}

// No instruction: keeps the compiler from moving uses of the sums before the preceding wait.
template <unsigned kValues>
TESSERA_DEVICE void wgmma_done(int32_t (&d)[kValues]) {
  for (unsigned i = 0; i < kValues; ++i) asm volatile("" : "+r"(d[i])::"memory");
}
template <unsigned kValues>
TESSERA_DEVICE void wgmma_done(float (&d)[kValues]) {
  for (unsigned i = 0; i < kValues; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// ---- products: inline assembly needs its operands listed, which these macros do ----
#define TESSERA_SUMS_8(bind, i)                                                               \
  bind(d[i]), bind(d[i + 1]), bind(d[i + 2]), bind(d[i + 3]), bind(d[i + 4]), bind(d[i + 5]), \
      bind(d[i + 6]), bind(d[i + 7])
#define TESSERA_SUMS_32(bind, i)                                                      \
  TESSERA_SUMS_8(bind, i), TESSERA_SUMS_8(bind, i + 8), TESSERA_SUMS_8(bind, i + 16), \
      TESSERA_SUMS_8(bind, i + 24)
#define TESSERA_SUMS_64(bind, i) TESSERA_SUMS_32(bind, i), TESSERA_SUMS_32(bind, i + 32)
#define TESSERA_SUMS_128(bind, i) TESSERA_SUMS_64(bind, i), TESSERA_SUMS_64(bind, i + 64)
#define TESSERA_INTEGER(sum) "+r"(sum)
#define TESSERA_FLOAT(sum) "+f"(sum)
#define TESSERA_NAMES_32                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TESSERA_NAMES_64                                                             \
  TESSERA_NAMES_32                                                                   \
  ", "                                                                               \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TESSERA_NAMES_128                                                                        \
  TESSERA_NAMES_64                                                                               \
  ", "                                                                                           \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// The operands after 32, 64 or 128 sums: A, the descriptor of B, and whether to accumulate.
#define TESSERA_INPUTS_32 "{%32, %33, %34, %35}, %36"
#define TESSERA_ADD_32 "%37"
#define TESSERA_INPUTS_64 "{%64, %65, %66, %67}, %68"
#define TESSERA_ADD_64 "%69"
#define TESSERA_INPUTS_128 "{%128, %129, %130, %131}, %132"
#define TESSERA_ADD_128 "%133"
#define TESSERA_WGMMA(name, Sum, bind, sums, shape, more)                                       \
  TESSERA_DEVICE void name(Sum(&d)[sums], const uint32_t(&a)[4], uint64_t b, bool accumulate) { \
    asm volatile("{\n\t.reg .pred add;\n\tsetp.ne.b32 add, " TESSERA_ADD_##sums                 \
                 ", 0;\n\twgmma.mma_async.sync.aligned." shape " {" TESSERA_NAMES_##sums        \
                 "}, " TESSERA_INPUTS_##sums ", add" more ";\n\t}"                              \
                 : TESSERA_SUMS_##sums(bind, 0)                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                          \
                   "r"(static_cast<uint32_t>(accumulate)));                                     \
  }

// d (+)= A B, A [64, 32] bytes in registers, unsigned or signed, B [32, N] signed bytes in shared memory by
// descriptor, d [64, N], where N is twice the number of sums that a thread has. Warp w has rows 16 w ... 16 w
// + 15 of A and d in the fragments of mma.m16n8k32; d's registers 4 j ... 4 j + 3 are columns 8 j ... 8 j +
// 7. If accumulate is false, d is not added but overwritten.
TESSERA_WGMMA(wgmma_k32_u8s8, int32_t, TESSERA_INTEGER, 32, "m64n64k32.s32.u8.s8", "")
TESSERA_WGMMA(wgmma_k32_u8s8, int32_t, TESSERA_INTEGER, 64, "m64n128k32.s32.u8.s8", "")
TESSERA_WGMMA(wgmma_k32_u8s8, int32_t, TESSERA_INTEGER, 128, "m64n256k32.s32.u8.s8", "")
TESSERA_WGMMA(wgmma_k32_s8, int32_t, TESSERA_INTEGER, 32, "m64n64k32.s32.s8.s8", "")
TESSERA_WGMMA(wgmma_k32_s8, int32_t, TESSERA_INTEGER, 64, "m64n128k32.s32.s8.s8", "")
// The same for bfloat16, with A [64, 16] in the fragments of mma.m16n8k16, B [16, N] and float32 sums, whose
// rounding is not documented. The flags: neither operand is negated, B is not transposed (a token's columns
// are contiguous).
TESSERA_WGMMA(wgmma_k16_bf16, float, TESSERA_FLOAT, 32, "m64n64k16.f32.bf16.bf16", ", 1, 1, 0")
TESSERA_WGMMA(wgmma_k16_bf16, float, TESSERA_FLOAT, 64, "m64n128k16.f32.bf16.bf16", ", 1, 1, 0")

#undef TESSERA_SUMS_8
#undef TESSERA_SUMS_32
#undef TESSERA_SUMS_64
#undef TESSERA_SUMS_128
#undef TESSERA_INTEGER
#undef TESSERA_FLOAT
#undef TESSERA_NAMES_32
#undef TESSERA_NAMES_64
#undef TESSERA_NAMES_128
#undef TESSERA_INPUTS_32
#undef TESSERA_INPUTS_64
#undef TESSERA_INPUTS_128
#undef TESSERA_ADD_32
#undef TESSERA_ADD_64
#undef TESSERA_ADD_128
#undef TESSERA_WGMMA

}  // namespace tessera::cuda
