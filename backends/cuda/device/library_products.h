// How long NVIDIA's own library takes for a dense product: the yardstick beside the figures of the benchmark.
#pragma once

#include <optional>

#include "backends/backend.h"
#include "backends/cuda/device/device.h"

namespace tessera::cuda {

// Seconds of one product in bits (16: f16 with f32 sums, 8: int8 with int32 sums), weights rotated beyond
// twice the L2. Nothing where cuBLASLt is not installed, has no such product, or there is no memory for it.
std::optional<double> library_seconds(Queue& queue, const ProductShape& shape, unsigned bits);

}  // namespace tessera::cuda
