#include "backends/cuda/upload/repack.h"

#include "backends/cuda/device/launch.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kMostPanels = 65535;  // of one launch: the grid's second dimension

// A thread for each word of the device's panel; block_y() is the panel.
TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void repack_integer(RepackJob job) {
  const Global<const std::byte> file = job.file + block_y() * job.file_panel_bytes;
  const Global<std::byte> device = job.device + block_y() * job.device_panel_bytes;
  const uint32_t columns = layout::unit_columns(job.format);
  const uint32_t index = block_x() * kThreads + thread_index();
  const uint32_t unit = index / layout::kUnitWords;
  if (unit >= job.columns / columns) return;
  const uint32_t word = index % layout::kUnitWords;
  const size_t first = layout::unit_byte(job.format, unit);  // the units' offsets are those of the file
  const layout::WordSource source = layout::source_of(has_nibbles(job.format), word);
  const Global<const uint32_t> words = file.as<const uint32_t>(first);
  uint32_t codes = words[source.low];
  if (has_nibbles(job.format)) codes = layout::merged_nibbles(codes, words[source.high], source.upper);
  device.as<uint32_t>(first).store(word, codes);
  if (job.format != WeightFormat::w4a8_g128 || unit % layout::kGroupUnits != 0 ||
      word >= 2 * tile::kPanelRows)
    return;
  device.as<uint8_t>(first + layout::kParameters)
      .store(word, file.as<const uint8_t>(first)[layout::source_parameter(word)]);
}

// The file's panels interleave 16 rows; on the device rows are contiguous and padded with zeros.
template <class Element>
TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void repack_float(RepackJob job) {
  const Global<const Element> file = (job.file + block_y() * job.file_panel_bytes).as<const Element>();
  const Global<Element> device = (job.device + block_y() * job.device_panel_bytes).as<Element>();
  const size_t stride = layout::float_row_elements(job.columns);
  const size_t index = size_t{block_x()} * kThreads + thread_index();
  const size_t row = index / stride;
  const size_t column = index % stride;
  if (row >= tile::kPanelRows) return;
  Element element = 0;
  if (column < job.columns) {
    const size_t from = job.format == WeightFormat::bf16 ? tile::bf16_in_panel(row, column)
                                                         : tile::element_in_panel(row, column);
    element = file[from];
  }
  device.store(index, element);
}

}  // namespace

void repack(Queue& queue, const RepackJob& job) {
  for (uint32_t first = 0; first < job.panels; first += kMostPanels) {
    RepackJob piece = job;
    piece.file = job.file + first * job.file_panel_bytes;
    piece.device = job.device + first * job.device_panel_bytes;
    piece.panels = job.panels - first < kMostPanels ? job.panels - first : kMostPanels;
    const size_t words = is_integer(job.format)
                             ? size_t{job.columns / layout::unit_columns(job.format)} * layout::kUnitWords
                             : layout::float_row_elements(job.columns) * tile::kPanelRows;
    const LaunchShape shape{static_cast<uint32_t>((words + kThreads - 1) / kThreads), piece.panels, 1,
                            kThreads, 0};
    if (is_integer(job.format)) {
      launch(queue, shape, &repack_integer, piece);
    } else if (job.format == WeightFormat::f32) {
      launch(queue, shape, &repack_float<uint32_t>, piece);
    } else {
      launch(queue, shape, &repack_float<uint16_t>, piece);
    }
  }
}

}  // namespace tessera::cuda
