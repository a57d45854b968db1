// Times NVIDIA's own library on a dense product, for comparison in the benchmark.
#pragma once

#include <optional>

#include "backends/backend.h"
#include "backends/cuda/device/device.h"

namespace tessera::cuda {

// Seconds for one product with elements of `bits` bits (16: f16 with f32 sums, 8: int8 with int32 sums).
// Successive products read different copies of the weights, more than twice the L2 cache in all. Empty where
// cuBLASLt is not installed, does not support the product, or memory is short.
std::optional<double> library_seconds(Queue& queue, const ProductShape& shape, unsigned bits);

}  // namespace tessera::cuda
