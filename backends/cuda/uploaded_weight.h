// A stored tensor in device memory.
#pragma once

#include "backends/backend.h"
#include "backends/cuda/device.h"
#include "backends/cuda/weights.h"

namespace tessera::cuda {

class UploadedWeight : public AdoptedWeight {
 public:
  // Copies the tensor and rearranges it on the device. staging is grown to what the copy needs, at most 64
  // MiB, and may serve the next upload. Fails with one line that names the tensor: a scheme without kernels,
  // sizes beyond 32 bits, bytes that do not fit the shape, no memory.
  static Result<std::unique_ptr<UploadedWeight>> upload(Queue& queue, DeviceMemory& staging,
                                                        const StoredTensor& tensor);

  Scheme scheme() const { return scheme_; }
  const std::vector<uint64_t>& shape() const { return shape_; }
  size_t rows() const { return shape_.size() == 2 ? static_cast<size_t>(shape_[0]) : 1; }
  size_t columns() const { return static_cast<size_t>(shape_.back()); }
  const MatrixView& matrix() const { return matrix_; }                        // rank 2
  Global<const float> vector() const { return memory_.view<const float>(); }  // rank 1

 private:
  Scheme scheme_ = Scheme::f32;
  std::vector<uint64_t> shape_;
  DeviceMemory memory_;
  MatrixView matrix_;
};

}  // namespace tessera::cuda
