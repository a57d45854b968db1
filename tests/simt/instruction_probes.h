// Kernels of one instruction each, so that the emulator and a device can be held against the same plain
// arithmetic.
#pragma once

#include "backends/cuda/device.h"

namespace tessera::cuda {

// One warp; lane l reads its `inputs` words at in[l * inputs] and writes its `outputs` words at out[l *
// outputs].
struct ProbeJob {
  Global<const uint32_t> in;
  Global<uint32_t> out;
};

struct Probe {
  const char* name;
  size_t inputs;
  size_t outputs;
  void (*run)(Queue& queue, const ProbeJob& job);
};

// mma_s8, mma_u8s8, mma_bf16: a[4] b[2] c[4] -> d[4]. ldmatrix_x4: the lane's 16 bytes of shared memory and
// the number of the row whose address it gives -> d[4]. shuffle_xor_1 … 16, shuffle_from: value, lane ->
// value. prmt, lop3_96 (a ^ b ^ c), lop3_ea, dp4a_s8, dp4a_u8s8: three words -> one. float_to_half,
// half_to_float: one word -> one. async_copy: the first 128 words are the lanes' sources, the last 32 say
// whether to copy (odd) or to write zero -> the exclusive or of that copy and of one that is always made,
// both of the lane 9 further on.
std::span<const Probe> instruction_probes();

}  // namespace tessera::cuda
