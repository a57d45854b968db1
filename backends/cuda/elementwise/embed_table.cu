// Looks up rows of an embedding matrix in a scheme with scales per group. One block for each token.
#include "backends/cuda/device/launch.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/elementwise/row_quads.h"

namespace tessera::cuda {

namespace {

// The code of (row 0..15, column) of a panel, as stored there.
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

struct RowLevels {
  float scale;
  float offset;  // zero point or minimum
};

// Of the group of columns of a panel's row.
TESSERA_DEVICE RowLevels levels_at(const TableView& table, Global<const std::byte> panel, uint32_t row,
                                   uint32_t group) {
  const uint32_t half = table_layout::half_of_row(row);
  const size_t scales = table_layout::scales_byte(table.bits, table.columns, group);
  if (table.nested) {
    const size_t factors = table_layout::nested_factors_byte(table.columns, group / tile::kNestedGroups);
    const Global<const uint16_t> d = panel.as<const uint16_t>(factors);
    const Global<const uint8_t> bytes = panel.as<const uint8_t>(scales + 4 * (row % 8) + row / 8);
    return {multiply_rn(half_to_float(d[half]), static_cast<float>(bytes[0])),
            multiply_rn(-half_to_float(d[16 + half]), static_cast<float>(bytes[2]))};
  }
  const float scale = half_to_float(panel.as<const uint16_t>(scales)[half]);
  if (!table.has_offsets()) return {scale, 0.0f};
  const size_t offsets = table_layout::offsets_byte(table.bits, table.columns, table.group, group);
  return {scale, half_to_float(panel.as<const uint16_t>(offsets)[half])};
}

TESSERA_DEVICE float plus_added(const EmbedTableJob& job, uint32_t column, float value) {
  return job.added.base.null() ? value : add_rn(job.added.floats(block_x())[column], value);
}

TESSERA_KERNEL TESSERA_BLOCK_OF(kMostRowThreads) void embed_table_rows(EmbedTableJob job) {
  wait_for_earlier_kernels();
  const TableView& table = job.table;
  const uint32_t row = job.tokens[block_x()];
  const Global<float> y = job.y.floats(block_x());
  const Global<const std::byte> panel = table.panels + row / 16 * table.panel_bytes;
  const Global<const float> values = table.entries.as<const float>();
  for (uint32_t k = thread_index(); k < job.columns; k += block_size()) {
    const RowLevels levels = levels_at(table, panel, row % 16, k / table.group);
    const uint32_t code = code_at(table, panel, row % 16, k);
    float value = table.bits == 8 ? static_cast<float>(static_cast<int8_t>(code)) : values[code];
    if (table.offset == GroupOffset::zero_point) value = add_rn(value, -levels.offset);
    value = multiply_rn(levels.scale, value);
    if (table.offset == GroupOffset::minimum) value = add_rn(value, levels.offset);
    y.store(k, plus_added(job, k, multiply_rn(value, job.multiplier)));
  }
}

}  // namespace

void embed_table(Queue& queue, const EmbedTableJob& job, uint32_t rows) {
  launch(queue, {rows, 1, 1, row_threads_by_columns(job.columns), 0, true}, &embed_table_rows, job);
}

}  // namespace tessera::cuda
