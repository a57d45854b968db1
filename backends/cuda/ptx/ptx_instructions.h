// Device functions of one PTX instruction each, for nvcc. emulator/emulated_instructions.h has the same
// functions for the host, so that a kernel that uses only these compiles for both.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#define TESSERA_KERNEL __global__
#define TESSERA_DEVICE __device__ __forceinline__
#define TESSERA_BOTH __host__ __device__
// Declares the largest number of threads in a block that the kernel is launched with.
#define TESSERA_BLOCK_OF(threads) __launch_bounds__(threads, 1)
// Unrolls a loop with a constant count, so that arrays indexed in it stay in registers.
#define TESSERA_UNROLL _Pragma("unroll")

namespace tessera::cuda {

// ---- coordinates ----
TESSERA_DEVICE uint32_t thread_index() { return threadIdx.x; }
TESSERA_DEVICE uint32_t lane_index() { return threadIdx.x % 32; }
TESSERA_DEVICE uint32_t warp_index() { return threadIdx.x / 32; }
TESSERA_DEVICE uint32_t block_size() { return blockDim.x; }
TESSERA_DEVICE uint32_t block_x() { return blockIdx.x; }
TESSERA_DEVICE uint32_t block_y() { return blockIdx.y; }
TESSERA_DEVICE uint32_t block_z() { return blockIdx.z; }

// ---- memory ----
// The block's dynamic shared memory, aligned to 1024 bytes.
TESSERA_DEVICE std::byte* shared_memory() {
  extern __shared__ __align__(1024) unsigned char tessera_shared_bytes[];
  return reinterpret_cast<std::byte*>(tessera_shared_bytes);
}

// A value of 16 bytes is loaded and stored in one instruction.
template <class Value>
TESSERA_DEVICE Value load_vector(const Value* at) {
  if constexpr (sizeof(Value) == 16 && alignof(Value) == 16) {
    const uint4 words = *reinterpret_cast<const uint4*>(at);
    Value value;
    __builtin_memcpy(&value, &words, sizeof value);
    return value;
  } else {
    return *at;
  }
}
template <class Value>
TESSERA_DEVICE void store_vector(Value* at, const Value& value) {
  if constexpr (sizeof(Value) == 16 && alignof(Value) == 16) {
    uint4 words;
    __builtin_memcpy(&words, &value, sizeof value);
    *reinterpret_cast<uint4*>(at) = words;
  } else {
    *at = value;
  }
}
template <class Value>
TESSERA_DEVICE Value load_global(const Value* at) {
  return load_vector(at);
}
template <class Value>
TESSERA_DEVICE void store_global(Value* at, const Value& value) {
  store_vector(at, value);
}
template <class Value>
TESSERA_DEVICE Value load_shared(const Value* at) {
  return load_vector(at);
}
template <class Value>
TESSERA_DEVICE void store_shared(Value* at, const Value& value) {
  store_vector(at, value);
}

TESSERA_DEVICE uint32_t shared_address(const std::byte* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
// Starts an asynchronous copy of 16 bytes, which joins the thread's open group.
TESSERA_DEVICE void cp_async_16(std::byte* shared, const std::byte* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}
// If real is false, writes 16 zero bytes and does not read global.
TESSERA_DEVICE void cp_async_16_or_zero(std::byte* shared, const std::byte* global, bool real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(real ? 16 : 0)
               : "memory");
}
// Copies the first `bytes` of 16 bytes, 0 to 16; the others become zero.
TESSERA_DEVICE void cp_async_16_part(std::byte* shared, const std::byte* global, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(bytes)
               : "memory");
}
// Closes the thread's open group of copies.
TESSERA_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the kGroupsLeft youngest of the thread's closed groups are in flight. Other threads see
// the bytes after a barrier.
template <unsigned kGroupsLeft>
TESSERA_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

// ---- barriers and shuffles: all threads of the block, or all lanes of the warp, take part ----
TESSERA_DEVICE void block_barrier() { __syncthreads(); }
TESSERA_DEVICE void warp_barrier() { __syncwarp(); }
TESSERA_DEVICE uint32_t shuffle_xor(uint32_t value, uint32_t mask) {
  return __shfl_xor_sync(0xffffffffu, value, static_cast<int>(mask));
}
TESSERA_DEVICE uint32_t shuffle_from(uint32_t value, uint32_t lane) {
  return __shfl_sync(0xffffffffu, value, static_cast<int>(lane));
}

// ---- the tensor cores: d += A B, A [16, 32] by B [32, 8], or with bf16 A [16, 16] by B [16, 8]; fragments
// as in the PTX manual ----
TESSERA_DEVICE void mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
TESSERA_DEVICE void mma_m16n8k32_u8s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// A [16, 16] by B [16, 8], f16 with float32 sums.
TESSERA_DEVICE void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Products and sums in float32; the rounding of sums is not documented.
TESSERA_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// A [16, 8] by B [8, 8], tf32: floats whose lower 13 bits are zero. Sums as above.
TESSERA_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four 8 x 16-byte matrices from shared memory; lane l gives the address of row l % 8 of matrix l / 8.
TESSERA_DEVICE void ldmatrix_x4(uint32_t (&d)[4], const std::byte* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(shared_address(row))
               : "memory");
}

// ---- integers ----
TESSERA_DEVICE uint32_t prmt(uint32_t low, uint32_t high, uint32_t selector) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
  return result;
}
// Any function of three bits, by its truth table: 0xf0 is a, 0xcc is b, 0xaa is c.
template <unsigned kTable>
TESSERA_DEVICE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(result) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return result;
}
// sum + four products of bytes.
TESSERA_DEVICE int32_t dp4a_s8(uint32_t a, uint32_t b, int32_t sum) {
  int32_t result;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
  return result;
}
TESSERA_DEVICE int32_t dp4a_u8s8(uint32_t a, uint32_t b, int32_t sum) {
  int32_t result;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
  return result;
}

// ---- floats: the _rn functions are never fused with others ----
TESSERA_DEVICE uint32_t float_bits(float x) { return __float_as_uint(x); }
TESSERA_DEVICE float bits_float(uint32_t x) { return __uint_as_float(x); }
TESSERA_DEVICE float half_to_float(uint16_t x) { return __half2float(__ushort_as_half(x)); }
TESSERA_DEVICE uint16_t float_to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }
// Two floats as f16, low in the lower half.
TESSERA_DEVICE uint32_t floats_to_halves(float low, float high) {
  uint32_t result;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
// Two floats as bfloat16, low in the lower half, rounded half to even.
TESSERA_DEVICE uint32_t floats_to_bf16s(float low, float high) {
  uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
}
TESSERA_DEVICE float add_rn(float a, float b) { return __fadd_rn(a, b); }
TESSERA_DEVICE float multiply_rn(float a, float b) { return __fmul_rn(a, b); }
TESSERA_DEVICE float divide_rn(float a, float b) { return __fdiv_rn(a, b); }
TESSERA_DEVICE float square_root_rn(float x) { return __fsqrt_rn(x); }
TESSERA_DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// The maximum; of NaN and a number, the number.
TESSERA_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
TESSERA_DEVICE float round_even(float x) { return rintf(x); }
TESSERA_DEVICE float exponential(float x) { return expf(x); }
// 2^x with a relative error of at most 2^-22; results below the smallest normal number are zero.
TESSERA_DEVICE float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
struct Rotation {
  double sine;
  double cosine;
};
TESSERA_DEVICE Rotation rotation(double angle) {
  Rotation result;
  sincos(angle, &result.sine, &result.cosine);
  return result;
}

}  // namespace tessera::cuda
