// Converts table weights on the device from the file's panels to table_layout.h.
#pragma once

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/table_layout.h"

namespace tessera::cuda {

// file and device hold `panels` whole panels of 16 rows each.
struct RepackTableJob {
  Global<const std::byte> file;
  Global<std::byte> device;
  uint32_t bits = 4;
  uint32_t group = 128;
  bool offsets = false;         // groups have offsets of their own
  bool nested = false;          // levels as int4k has them
  uint32_t file_columns = 0;    // whole groups
  uint32_t device_columns = 0;  // whole blocks, at least as many
  uint32_t panels = 0;
  size_t file_panel_bytes = 0;
  size_t device_panel_bytes = 0;
};
// Queues the launch. Columns beyond the file's become weights and scales of 0.
void repack_table(Queue& queue, const RepackTableJob& job);

}  // namespace tessera::cuda
