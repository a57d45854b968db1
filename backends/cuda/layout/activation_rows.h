// An activation tensor for kernels: rows of bytes in device memory.
#pragma once

#include "backends/cuda/device/views.h"

namespace tessera::cuda {

struct Rows {
  Global<std::byte> base;
  size_t stride = 0;  // bytes from one row to the next, a multiple of 64

  TESSERA_BOTH Global<std::byte> bytes(size_t row) const { return base + row * stride; }
  TESSERA_BOTH Global<float> floats(size_t row) const { return bytes(row).as<float>(); }
};

}  // namespace tessera::cuda
