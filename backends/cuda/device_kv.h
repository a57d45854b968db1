// The KV cache in device memory; attention/kv_layout.h says how a block of it looks.
#pragma once

#include "backends/backend.h"
#include "backends/cuda/attention/kv_layout.h"
#include "backends/cuda/device.h"

namespace tessera::cuda {

class DeviceKv : public KvStorage {
 public:
  static size_t page_bytes(const KvGeometry& geometry);
  // Fails with one line: a geometry without kernels, or no memory.
  static Result<std::unique_ptr<KvStorage>> create(const KvGeometry& geometry, size_t pages);

  KvLayer layer(size_t index) const;

 private:
  DeviceKv(const KvGeometry& geometry, size_t pages, DeviceMemory memory);
  std::vector<size_t> layer_offset_;
  DeviceMemory memory_;
};

}  // namespace tessera::cuda
