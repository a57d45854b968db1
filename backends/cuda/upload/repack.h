// Converts weights on the device from the file's panels to weight_layout.h.
#pragma once

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/weight_layout.h"

namespace tessera::cuda {

// file and device hold `panels` whole panels of 16 rows each.
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
