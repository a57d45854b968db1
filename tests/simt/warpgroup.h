// The functions of backends/cuda/ptx/warpgroup.h for the emulator. A product's sums are garbage until the
// product was waited for, and its operands may not change before.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cuda {

inline constexpr bool kHasWarpgroups = true;

namespace emulated {
void set_registers(uint32_t count);
void wgmma(uint32_t tokens, int32_t* sums, const uint32_t (&a)[4], uint64_t b, bool accumulate);
void wgmma_wait(uint32_t batches_left);
}  // namespace emulated

template <unsigned kRegisters>
void give_registers() {
  emulated::set_registers(kRegisters);
}
template <unsigned kRegisters>
void take_registers() {
  emulated::set_registers(kRegisters);
}

void wgmma_fence();
void wgmma_commit();
template <unsigned kBatchesLeft>
void wgmma_wait() {
  emulated::wgmma_wait(kBatchesLeft);
}
template <unsigned kValues>
void wgmma_done(int32_t (&)[kValues]) {}
inline void wgmma_m64n64k32_u8s8(int32_t (&d)[32], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  emulated::wgmma(64, d, a, b, accumulate);
}
inline void wgmma_m64n128k32_u8s8(int32_t (&d)[64], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  emulated::wgmma(128, d, a, b, accumulate);
}
inline void wgmma_m64n256k32_u8s8(int32_t (&d)[128], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  emulated::wgmma(256, d, a, b, accumulate);
}

}  // namespace tessera::cuda
