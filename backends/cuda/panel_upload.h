// Uploads the panels of a matrix through a staging buffer and rearranges them on the device.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "backends/cuda/device/device.h"

namespace tessera::cuda {

// panels: whole panels of panel_bytes each. For each piece that is uploaded, rearrange(file, first, count)
// queues the kernel that converts panels first … first + count - 1 of the matrix, which are at `file`, to the
// device's layout. staging grows to at most 64 MiB, or one panel if that is larger. Returns an error in one
// line, or an empty string.
std::string upload_panels(
    Queue& queue, DeviceMemory& staging, std::span<const std::byte> panels, size_t panel_bytes,
    const std::function<void(Global<const std::byte> file, size_t first, size_t count)>& rearrange);

}  // namespace tessera::cuda
