#include "backends/cuda/device_kv.h"

#include <fmt/format.h>

#include <limits>

namespace tessera::cuda {

namespace {

KvLayer shape_of(const KvGeometry& geometry, size_t layer) {
  return {Global<std::byte>(), geometry.layer_bits(layer), static_cast<uint32_t>(geometry.head_dim),
          static_cast<uint32_t>(geometry.kv_heads)};
}

std::string fault_of(const KvGeometry& geometry) {
  if (geometry.head_dim > kLongestHead)
    return fmt::format("kv cache: the cuda backend expects heads of up to {} elements, found {}",
                       kLongestHead, geometry.head_dim);
  if (geometry.kv_heads > std::numeric_limits<uint16_t>::max())
    return fmt::format("kv cache: expected 1 to 65535 kv heads, found {}", geometry.kv_heads);
  return {};
}

}  // namespace

KvPageBytes DeviceKv::page_bytes(const KvGeometry& geometry) {
  KvPageBytes bytes;
  for (size_t layer = 0; layer < geometry.layers; ++layer)
    (geometry.layer_slides(layer) ? bytes.window : bytes.full) +=
        geometry.kv_heads * shape_of(geometry, layer).block_bytes();
  return bytes;
}

Result<std::unique_ptr<KvStorage>> DeviceKv::create(const KvGeometry& geometry, size_t pages) {
  using Outcome = Result<std::unique_ptr<KvStorage>>;
  if (std::string fault = fault_of(geometry); !fault.empty()) return Outcome::failure(std::move(fault));
  const KvPageBytes page = page_bytes(geometry);
  auto memory = DeviceMemory::allocate(page.full * pages + page.window * geometry.window_pages);
  if (!memory.ok())
    return Outcome::failure(
        fmt::format("kv cache: {} pages of {} bytes: {}", pages, page.full, memory.error()));
  return Outcome(std::unique_ptr<KvStorage>(new DeviceKv(geometry, pages, std::move(memory.value()))));
}

DeviceKv::DeviceKv(const KvGeometry& geometry, size_t pages, DeviceMemory memory)
    : KvStorage(geometry, pages), memory_(std::move(memory)) {
  size_t bytes = 0;
  for (size_t layer = 0; layer < geometry.layers; ++layer) {
    layer_offset_.push_back(bytes);
    bytes += geometry.layer_pages(layer, pages) * geometry.kv_heads * shape_of(geometry, layer).block_bytes();
  }
}

KvLayer DeviceKv::layer(size_t index) const {
  KvLayer layer = shape_of(geometry(), index);
  layer.base = memory_.view<std::byte>(layer_offset_[index]);
  return layer;
}

}  // namespace tessera::cuda
