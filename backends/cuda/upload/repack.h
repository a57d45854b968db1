// From the file's panels to the layout of device memory, on the device: a weight is copied as it lies in the
// file and rearranged there.
#pragma once

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/weight_layout.h"

namespace tessera::cuda {

// Both hold `panels` whole panels of 16 rows.
struct RepackJob {
  Global<const std::byte> file;
  Global<std::byte> device;
  WeightFormat format = WeightFormat::f32;
  uint32_t columns = 0;  // of the matrix; integer formats: stored columns, whole units
  uint32_t panels = 0;
  size_t file_panel_bytes = 0;
  size_t device_panel_bytes = 0;
};
void repack(Queue& queue, const RepackJob& job);

}  // namespace tessera::cuda
