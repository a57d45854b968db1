// The functions of ptx/ptx_warpgroup.h for the emulator. Until a product has been waited for, its sums are
// garbage and its operands must not change.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cuda {

inline constexpr bool kHasWarpgroups = true;

namespace emulated {
enum class Elements : uint8_t { u8s8, s8, bf16 };  // of A and B
struct Operands {
  Elements elements;
  uint32_t tokens;
  void* sums;  // the thread's tokens / 2 int32, or float for bf16
  const uint32_t* a;
  uint64_t b;
  bool accumulate;
};
void set_registers(uint32_t count);
void wgmma(const Operands& operands);
void wgmma_wait(uint32_t batches_left);
}  // namespace emulated

template <unsigned kRegisters>
void shrink_registers() {
  emulated::set_registers(kRegisters);
}
template <unsigned kRegisters>
void grow_registers() {
  emulated::set_registers(kRegisters);
}

void wgmma_fence();
void wgmma_commit();
template <unsigned kBatchesLeft>
void wgmma_wait() {
  emulated::wgmma_wait(kBatchesLeft);
}
template <class Sum, unsigned kValues>
void wgmma_done(Sum (&)[kValues]) {}
template <unsigned kValues>
void wgmma_k32_u8s8(int32_t (&d)[kValues], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  emulated::wgmma({emulated::Elements::u8s8, 2 * kValues, d, a, b, accumulate});
}
template <unsigned kValues>
void wgmma_k32_s8(int32_t (&d)[kValues], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  emulated::wgmma({emulated::Elements::s8, 2 * kValues, d, a, b, accumulate});
}
template <unsigned kValues>
void wgmma_k16_bf16(float (&d)[kValues], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  emulated::wgmma({emulated::Elements::bf16, 2 * kValues, d, a, b, accumulate});
}

}  // namespace tessera::cuda
