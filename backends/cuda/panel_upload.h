// Brings a matrix's panels to the device piece by piece, through a staging buffer.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "backends/cuda/device/device.h"

namespace tessera::cuda {

// panels holds whole panels of panel_bytes each. rearrange(file, first, count) queues what makes of `count`
// panels at file, the matrix's panels first, first + 1, …, what the device wants. staging is grown to at most
// 64 MiB, or one panel. The line of the fault, or empty.
std::string upload_panels(
    Queue& queue, DeviceMemory& staging, std::span<const std::byte> panels, size_t panel_bytes,
    const std::function<void(Global<const std::byte> file, size_t first, size_t count)>& rearrange);

}  // namespace tessera::cuda
