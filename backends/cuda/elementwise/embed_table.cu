// Looks up rows of an embedding matrix in a table scheme. One block for each token.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/row_quads.h"

namespace tessera::cuda {

namespace {

// The code of (row 0..15, column) of a panel.
TESSERA_DEVICE uint32_t code_at(const TableView& table, Global<const std::byte> panel, uint32_t row,
                                uint32_t column) {
  const table_layout::LaneCode at = table_layout::lane_code(row, column % table_layout::kBlockColumns);
  const size_t block = size_t{column / table_layout::kBlockColumns} * table_layout::block_bytes(table.bits);
  uint32_t code = 0;
  for (uint32_t bit = 0; bit < table.bits; ++bit) {
    const table_layout::BitPlace place = table_layout::bit_place(table.bits, at.nibble_word, at.nibble, bit);
    const uint32_t byte = table_layout::word_byte(table.bits, at.lane, place.word);
    code |= (panel.as<const uint32_t>(block + byte)[0] >> place.shift & 1u) << bit;
  }
  return code;
}

TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void embed_table_rows(EmbedTableJob job) {
  wait_for_earlier_kernels();
  const TableView& table = job.table;
  const uint32_t row = job.tokens[block_x()];
  const Global<float> y = job.y.floats(block_x());
  const Global<const std::byte> panel = table.panels + row / 16 * table.panel_bytes;
  const uint32_t half = table_layout::half_of_row(row % 16);
  const Global<const float> values = table.entries.as<const float>();
  for (uint32_t k = thread_index(); k < job.columns; k += block_size()) {
    const size_t group = k / table.group;
    const size_t scales = table_layout::scales_byte(table.bits, table.columns, group);
    const float scale = half_to_float(panel.as<const uint16_t>(scales)[half]);
    float value = values[code_at(table, panel, row % 16, k)];
    if (table.zero_points) {
      const size_t zeros = table_layout::zeros_byte(table.bits, table.columns, table.group, group);
      value = add_rn(value, -half_to_float(panel.as<const uint16_t>(zeros)[half]));
    }
    y.store(k, multiply_rn(scale, value));
  }
}

}  // namespace

void embed_table(Queue& queue, const EmbedTableJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads_by_columns(job.columns), 0, true}, &embed_table_rows, job);
}

}  // namespace tessera::cuda
