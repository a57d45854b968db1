// A stored tensor in device memory.
#pragma once

#include "backends/backend.h"
#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/weight_views.h"

namespace tessera::cuda {

class UploadedWeight : public AdoptedWeight {
 public:
  explicit UploadedWeight(const StoredTensor& tensor) : AdoptedWeight(tensor) {}

  // Copies the tensor and rearranges it on the device; returns when that is done. staging grows as
  // upload_panels says and can be reused for the next upload. Fails with one line that names the tensor: a
  // scheme without kernels, sides beyond 2^30, a number of bytes that does not match the shape, or no memory.
  static Result<std::unique_ptr<UploadedWeight>> upload(Queue& queue, DeviceMemory& staging,
                                                        const StoredTensor& tensor);

  bool is_table() const { return scheme_facts(scheme()).group_scales(); }
  const MatrixView& matrix() const { return matrix_; }                        // rank 2, no scales per group
  const TableView& table() const { return table_; }                           // rank 2, scales per group
  Global<const float> vector() const { return memory_.view<const float>(); }  // rank 1
  Global<const uint32_t> order() const { return memory_.view<const uint32_t>(); }  // rank 1, u32

 private:
  static Result<std::unique_ptr<UploadedWeight>> upload_table(Queue& queue, DeviceMemory& staging,
                                                              const StoredTensor& tensor);

  DeviceMemory memory_;
  MatrixView matrix_;
  TableView table_;
};

}  // namespace tessera::cuda
