// Kernels of one instruction each, so that the emulator and a device can be compared with the same plain
// arithmetic.
#pragma once

#include "backends/cuda/device/device.h"

namespace tessera::cuda {

// One block; thread t reads its `inputs` words at in[t * inputs] and writes its `outputs` words at out[t *
// outputs].
struct ProbeJob {
  Global<const uint32_t> in;
  Global<uint32_t> out;
};

enum class Needs : uint8_t { any, bulk_copies, warpgroups };  // sm_80, sm_90, sm_90a

struct Probe {
  const char* name;
  size_t inputs;
  size_t outputs;
  void (*run)(Queue& queue, const ProbeJob& job);
  size_t threads = 32;
  Needs needs = Needs::any;
};

// mma_s8, mma_u8s8, mma_f16, mma_bf16, mma_tf32: a[4] b[2] c[4] -> d[4]. ldmatrix_x4: the lane's 16 bytes of
// shared memory and the number of the row whose address it gives -> d[4]. shuffle_xor_1 … 16, shuffle_from:
// value, lane -> value. prmt, lop3_96 (a ^ b ^ c), lop3_ea, dp4a_s8, dp4a_u8s8: three words -> one.
// float_to_half, half_to_float, power_of_two: one word -> one. floats_to_halves, floats_to_bf16s: two -> one.
// async_copy: the first 128 words are the lanes' sources, the last 32 say whether to copy (odd) or to write
// zero -> the exclusive or of that copy and of one that is always made, both of the lane 9 further on.
// part_copy: the same sources, then how many bytes to copy (modulo 17) -> the 16 bytes of the lane 9 further
// on.
// hinted_copy, bulk_copy: the lanes' 16 bytes -> those of the lane 9 further on, the latter through two
// phases of an mbarrier. named_barrier, of 96 threads: word -> that of the thread 63 - t; the last warp: its
// own. flags: word -> that word, stored with release and loaded with acquire. wgmma_u8s8_64, _128, _256,
// wgmma_s8_64, _128, wgmma_bf16_64, _128 (tokens N): a thread's registers of A for four products, each with
// 32 columns of bytes or 16 of bf16, then for each of the 128 threads N / 4 words of B, which is [N][128
// bytes] -> its N / 2 sums of all of them.
std::span<const Probe> instruction_probes();

}  // namespace tessera::cuda
