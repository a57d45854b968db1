// What the device can do at most, measured now.
#pragma once

#include "backends/backend.h"
#include "backends/cuda/device/device.h"

namespace tessera::cuda {

struct LimitSizes {
  size_t copied_bytes = size_t{512} << 20;  // far beyond twice any L2; halved while there is no room
  size_t copies = 10;
  size_t rounds = 4096;  // of products
  size_t warps_of_processor = 4 * 8;
};

// Best of three: bytes read and written by a copy, and 8-bit operations: of wgmma where the queue's features
// have warpgroups, otherwise of mma.sync on registers. Fails when there is no memory to copy or the device
// reports an error.
Result<DeviceLimits> measure_device_limits(Queue& queue, size_t processors, const LimitSizes& sizes);

}  // namespace tessera::cuda
