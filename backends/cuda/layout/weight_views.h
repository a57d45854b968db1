// Weight matrices in device memory as kernels get them: MatrixView in the layout of weight_layout.h,
// TableView, for table schemes, in that of table_layout.h.
#pragma once

#include "backends/cuda/device/views.h"
#include "backends/cuda/layout/table_layout.h"
#include "backends/cuda/layout/weight_layout.h"
#include "gguf-like-format/scheme.h"

namespace tessera::cuda {

struct MatrixView {
  WeightFormat format = WeightFormat::f32;
  uint32_t rows = 0;
  uint32_t columns = 0;           // as stored: integer formats are padded to whole units
  Global<const std::byte> codes;  // panels of 16 rows, or float rows
  size_t panel_bytes = 0;         // integer formats
  Global<const float> scales;     // integer formats: one per row, padded to whole panels
  Global<const uint8_t> zeros;    // w4a8: one per row, padded to whole panels
};

struct TableView {
  uint32_t bits = 4;
  uint32_t group = 128;  // columns that share a scale
  GroupOffset offset = GroupOffset::none;
  bool nested = false;  // scales and minimums of groups are products: int4k
  bool table = true;    // codes stand for values of a table, else for themselves
  bool int8_activations = false;
  uint32_t rows = 0;
  uint32_t columns = 0;            // on the device: padded to whole blocks
  Global<const std::byte> panels;  // of 16 rows
  size_t panel_bytes = 0;
  Global<const std::byte> entries;  // table_layout::Entries

  TESSERA_BOTH bool has_offsets() const { return offset != GroupOffset::none; }
  // Whether one kernel, with the same numbers, serves both.
  bool same_format(const TableView& other) const {
    return bits == other.bits && group == other.group && offset == other.offset && nested == other.nested &&
           table == other.table && int8_activations == other.int8_activations && columns == other.columns;
  }
};

}  // namespace tessera::cuda
