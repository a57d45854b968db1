// Measures the device's peak copy bandwidth and integer throughput.
#pragma once

#include "backends/backend.h"
#include "backends/cuda/device/device.h"

namespace tessera::cuda {

struct LimitSizes {
  size_t copied_bytes = size_t{512} << 20;  // far beyond twice any L2; halved while there is no room
  size_t copies = 10;
  size_t rounds = 4096;  // iterations of the product kernels
  size_t warps_of_processor = 4 * 8;
};

// The best of three runs each of a copy (bytes read and written) and of 8-bit products: by wgmma where the
// queue's features have warpgroups, otherwise by mma.sync on registers. Fails when memory is short or the
// device reports an error.
Result<DeviceLimits> measure_device_limits(Queue& queue, size_t processors, const LimitSizes& sizes);

}  // namespace tessera::cuda
