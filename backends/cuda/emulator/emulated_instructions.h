// The functions of ptx/ptx_instructions.h for the emulator, with the same names and results. Kernel sources
// use these when the host's compiler compiles them.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "backends/cuda/emulator/emulated_async_copies.h"
#include "backends/cuda/emulator/emulated_warpgroup.h"
#include "backends/cuda/emulator/machine.h"
#include "gguf-like-format/float_types.h"

#define TESSERA_KERNEL
#define TESSERA_DEVICE inline
#define TESSERA_BOTH
#define TESSERA_BLOCK_OF(threads)
#define TESSERA_UNROLL

namespace tessera::cuda {

// ---- coordinates ----
inline uint32_t thread_index() { return emulator::coordinates().thread; }
inline uint32_t lane_index() { return emulator::coordinates().thread % emulator::kWarpLanes; }
inline uint32_t warp_index() { return emulator::coordinates().thread / emulator::kWarpLanes; }
inline uint32_t block_size() { return emulator::block_threads(); }
inline uint32_t block_x() { return emulator::coordinates().block_x; }
inline uint32_t block_y() { return emulator::coordinates().block_y; }
inline uint32_t block_z() { return emulator::coordinates().block_z; }

// ---- memory ----
inline std::byte* shared_memory() { return emulator::shared_base(); }

template <class Value>
Value load_global(const Value* at) {
  emulator::check_global(at, sizeof(Value), emulator::Access::read);
  Value value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <class Value>
void store_global(Value* at, const Value& value) {
  emulator::check_global(at, sizeof(Value), emulator::Access::write);
  std::memcpy(at, &value, sizeof value);
}
template <class Value>
Value load_shared(const Value* at) {
  emulator::check_shared(at, sizeof(Value), emulator::Access::read);
  Value value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <class Value>
void store_shared(Value* at, const Value& value) {
  emulator::check_shared(at, sizeof(Value), emulator::Access::write);
  std::memcpy(at, &value, sizeof value);
}

inline void cp_async_16(std::byte* shared, const std::byte* global) {
  emulator::begin_async_copy(shared, global, 16);
}
inline void cp_async_16_or_zero(std::byte* shared, const std::byte* global, bool real) {
  emulator::begin_async_copy(shared, global, real ? 16 : 0);
}
inline void cp_async_16_part(std::byte* shared, const std::byte* global, uint32_t bytes) {
  emulator::begin_async_copy(shared, global, bytes);
}
inline void cp_async_commit() { emulator::commit_async_copies(); }
template <unsigned kGroupsLeft>
void cp_async_wait() {
  emulator::wait_async_copies(kGroupsLeft);
}

// ---- barriers and shuffles ----
inline void block_barrier() { emulator::block_barrier(); }
inline void warp_barrier() { emulator::warp_barrier(); }
uint32_t shuffle_xor(uint32_t value, uint32_t mask);
uint32_t shuffle_from(uint32_t value, uint32_t lane);

// ---- the tensor cores ----
void mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_m16n8k32_u8s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void ldmatrix_x4(uint32_t (&d)[4], const std::byte* row);

// ---- integers ----
uint32_t prmt(uint32_t low, uint32_t high, uint32_t selector);
template <unsigned kTable>
uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
  static_assert(kTable < 256, "the truth table of three inputs has eight entries");
  uint32_t result = 0;
  for (unsigned row = 0; row < 8; ++row) {
    if ((kTable >> row & 1) == 0) continue;
    result |= ((row & 4) != 0 ? a : ~a) & ((row & 2) != 0 ? b : ~b) & ((row & 1) != 0 ? c : ~c);
  }
  return result;
}
int32_t dp4a_s8(uint32_t a, uint32_t b, int32_t sum);
int32_t dp4a_u8s8(uint32_t a, uint32_t b, int32_t sum);

// ---- floats ----
inline uint32_t float_bits(float x) { return std::bit_cast<uint32_t>(x); }
inline float bits_float(uint32_t x) { return std::bit_cast<float>(x); }
inline float half_to_float(uint16_t x) { return f16_to_f32(x); }
inline uint16_t float_to_half(float x) { return f32_to_f16(x); }
inline uint32_t floats_to_halves(float low, float high) {
  return f32_to_f16(low) | static_cast<uint32_t>(f32_to_f16(high)) << 16;
}
inline uint32_t floats_to_bf16s(float low, float high) {
  return f32_to_bf16(low) | static_cast<uint32_t>(f32_to_bf16(high)) << 16;
}
inline float add_rn(float a, float b) { return a + b; }
inline float multiply_rn(float a, float b) { return a * b; }
inline float divide_rn(float a, float b) { return a / b; }
inline float square_root_rn(float x) { return std::sqrt(x); }
inline float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline float larger(float a, float b) { return std::fmax(a, b); }
inline float round_even(float x) { return std::nearbyint(x); }
inline float exponential(float x) { return std::exp(x); }
inline float power_of_two(float x) {
  const float power = std::exp2(x);
  return power < std::numeric_limits<float>::min() ? 0.0f : power;
}
struct Rotation {
  double sine;
  double cosine;
};
inline Rotation rotation(double angle) { return {std::sin(angle), std::cos(angle)}; }

}  // namespace tessera::cuda
