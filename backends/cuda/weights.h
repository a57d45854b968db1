// A weight matrix in device memory, laid out as weight_layout.h says.
#pragma once

#include "backends/cuda/views.h"
#include "backends/cuda/weight_layout.h"

namespace tessera::cuda {

struct MatrixView {
  WeightFormat format = WeightFormat::f32;
  uint32_t rows = 0;
  uint32_t columns = 0;           // stored ones: integer formats pad to whole units
  Global<const std::byte> codes;  // panels of 16 rows, or float rows
  size_t panel_bytes = 0;         // integer formats
  Global<const float> scales;     // integer formats: one per row, padded to whole panels
  Global<const uint8_t> zeros;    // w4a8: likewise
};

}  // namespace tessera::cuda
