#include "backends/cuda/panel_upload.h"

#include <algorithm>

namespace tessera::cuda {

namespace {

constexpr size_t kStagingBytes = size_t{64} << 20;

}  // namespace

std::string upload_panels(
    Queue& queue, DeviceMemory& staging, std::span<const std::byte> panels, size_t panel_bytes,
    const std::function<void(Global<const std::byte> file, size_t first, size_t count)>& rearrange) {
  const size_t panel_count = panels.size() / panel_bytes;
  const size_t piece = std::min(panel_count, std::max<size_t>(1, kStagingBytes / panel_bytes));
  if (staging.size() < piece * panel_bytes) {
    staging = DeviceMemory();
    auto made = DeviceMemory::allocate(piece * panel_bytes);
    if (!made.ok()) return made.error();
    staging = std::move(made.value());
  }
  for (size_t first = 0; first < panel_count; first += piece) {
    const size_t count = std::min(piece, panel_count - first);
    queue.upload(staging.address(), panels.subspan(first * panel_bytes, count * panel_bytes));
    rearrange(staging.view<const std::byte>(), first, count);
  }
  return {};
}

}  // namespace tessera::cuda
