// Looks up rows of an embedding matrix in any format but a table scheme. One block for each token.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/row_quads.h"

namespace tessera::cuda {

namespace {

TESSERA_DEVICE float float_weight(const MatrixView& table, size_t index) {
  if (table.format == WeightFormat::f32) return table.codes.as<const float>()[index];
  const uint16_t bits = table.codes.as<const uint16_t>()[index];
  if (table.format == WeightFormat::f16) return half_to_float(bits);
  return bits_float(static_cast<uint32_t>(bits) << 16);
}

TESSERA_DEVICE int32_t code_at(Global<const std::byte> panel, WeightFormat format, uint32_t row,
                               uint32_t column) {
  const layout::CodePlace place = layout::code_in_panel(format, row, column);
  const int32_t byte = panel.as<const uint8_t>()[place.byte];
  if (!has_nibbles(format)) return byte;
  return place.high ? byte >> 4 : byte & 15;
}

TESSERA_DEVICE float plus_added(const EmbedJob& job, uint32_t column, float value) {
  return job.added.base.null() ? value : add_rn(job.added.floats(block_x())[column], value);
}

TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void embed_rows(EmbedJob job) {
  wait_for_earlier_kernels();
  const uint32_t row = job.tokens[block_x()];
  const Global<float> y = job.y.floats(block_x());
  const MatrixView& table = job.table;
  if (!is_integer(table.format)) {
    const size_t first = row * layout::float_row_elements(table.columns);
    for (uint32_t k = thread_index(); k < job.columns; k += block_size())
      y.store(k, plus_added(job, k, multiply_rn(float_weight(table, first + k), job.multiplier)));
    return;
  }
  const Global<const std::byte> panel = table.codes + row / 16 * table.panel_bytes;
  const float scale = table.scales[row];
  const int32_t offset = table.format == WeightFormat::w4a8 ? table.zeros[row] : 128;
  for (uint32_t k = thread_index(); k < job.columns; k += block_size()) {
    int32_t code = code_at(panel, table.format, row % 16, k);
    if (table.format == WeightFormat::w4a8_g128) {
      const Global<const uint8_t> group =
          (panel + k / tile::kGroupColumns * tile::kGroupBytes).as<const uint8_t>();
      code = code * group[layout::scale_byte(row % 16)] + group[layout::offset_byte(row % 16)];
    }
    y.store(k,
            plus_added(job, k,
                       multiply_rn(multiply_rn(static_cast<float>(code - offset), scale), job.multiplier)));
  }
}

}  // namespace

void embed(Queue& queue, const EmbedJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads_by_columns(job.columns), 0, true}, &embed_rows, job);
}

}  // namespace tessera::cuda
