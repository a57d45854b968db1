// The KV cache in device memory, in the layout of layout/kv_layout.h.
#pragma once

#include "backends/backend.h"
#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/kv_layout.h"

namespace tessera::cuda {

class DeviceKv : public KvStorage {
 public:
  // Bytes of one page of all layers.
  static KvPageBytes page_bytes(const KvGeometry& geometry);
  // Memory for `pages` pages of every layer. Fails with one line when no kernel supports the geometry or
  // memory is short.
  static Result<std::unique_ptr<KvStorage>> create(const KvGeometry& geometry, size_t pages);

  // The pages of one layer, for kernels.
  KvLayer layer(size_t index) const;

 private:
  DeviceKv(const KvGeometry& geometry, size_t pages, DeviceMemory memory);
  std::vector<size_t> layer_offset_;
  DeviceMemory memory_;
};

}  // namespace tessera::cuda
