#include "backends/cuda/device/launch.h"
#include "backends/cuda/upload/repack_tables.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kMostPanels = 65535;  // of one launch: the grid's second dimension

// The code of (row, column) of a file's panel; 0 beyond its columns.
TESSERA_DEVICE uint32_t file_code(const RepackTableJob& job, Global<const uint8_t> panel, uint32_t row,
                                  uint32_t column) {
  if (column >= job.file_columns) return 0;
  const size_t unit = job.nested ? tile::nested_unit_byte(column)
                                 : tile::table_unit_byte(job.bits, job.group, job.offsets, column);
  const tile::CodeBits at = tile::code_in_unit(job.bits, row, column % tile::kTableUnitColumns);
  uint32_t code = static_cast<uint32_t>(panel[unit + at.byte]) >> at.shift & ((1u << at.low) - 1);
  if (at.low < job.bits)
    code |= (static_cast<uint32_t>(panel[unit + at.high_byte]) >> at.high_shift & 1u) << at.low;
  return code;
}

// A nibble of a stored word, made of the one or two codes that have bits in it.
TESSERA_DEVICE uint32_t stored_nibble(const RepackTableJob& job, Global<const uint8_t> panel,
                                      uint32_t first_column, table_layout::LaneWord at, uint32_t nibble) {
  const auto code = [&](uint32_t nibble_word) {
    return file_code(job, panel, table_layout::code_row(at.lane, nibble_word),
                     first_column + table_layout::code_column(at.lane, nibble_word, nibble));
  };
  if (job.bits == 4) return code(at.word);
  if (job.bits == 2) return code(2 * at.word) | code(2 * at.word + 1) << 2;
  const uint32_t first = at.word / 3 * 4;
  return code(first + at.word % 3) | (code(first + 3) >> at.word % 3 & 1u) << 3;
}

// A stored word of a block: eight nibbles, or four bytes less 128.
TESSERA_DEVICE uint32_t stored_word(const RepackTableJob& job, Global<const uint8_t> panel,
                                    uint32_t first_column, table_layout::LaneWord at) {
  uint32_t word = 0;
  if (job.bits == 8) {
    const uint32_t row = table_layout::code_row(at.lane, at.word / 2);
    const uint32_t column = first_column + table_layout::code_column(at.lane, at.word / 2, at.word % 2 * 4);
    if (column >= job.file_columns) return 0;
    for (uint32_t i = 0; i < 4; ++i) word |= (file_code(job, panel, row, column + i) ^ 128) << (8 * i);
    return word;
  }
  for (uint32_t nibble = 0; nibble < 8; ++nibble)
    word |= stored_nibble(job, panel, first_column, at, nibble) << (4 * nibble);
  return word;
}

// Scales, or offsets, of rows g and g + 8 as one word; first_row is where the file has that of row 0.
TESSERA_DEVICE uint32_t row_pair(Global<const std::byte> first_row, uint32_t g) {
  const Global<const uint16_t> halves = first_row.as<const uint16_t>();
  return halves[g] | static_cast<uint32_t>(halves[g + 8]) << 16;
}

// Word `index` of the levels of a panel's groups.
TESSERA_DEVICE uint32_t level_word(const RepackTableJob& job, Global<const std::byte> file, uint32_t index) {
  const uint32_t groups = job.device_columns / job.group;
  const uint32_t group = index / 8 % groups;
  if (group >= job.file_columns / job.group) return 0;
  const bool offsets = index / 8 >= groups;
  return row_pair(file + (offsets ? tile::table_zero_byte(job.bits, job.group, 0, group)
                                  : tile::table_scale_byte(job.bits, job.group, job.offsets, 0, group)),
                  index % 8);
}
TESSERA_DEVICE uint32_t nested_level_word(const RepackTableJob& job, Global<const std::byte> file,
                                          uint32_t index) {
  const uint32_t groups = job.device_columns / tile::kNestedGroup;
  const uint32_t g = index % 8;
  if (index >= 8 * groups) {
    const uint32_t block = (index - 8 * groups) / 16;
    const bool minimum = index / 8 % 2 != 0;
    return row_pair(
        file + (minimum ? tile::nested_minimum_byte(0, block) : tile::nested_scale_byte(0, block)), g);
  }
  const Global<const uint8_t> bytes = file.as<const uint8_t>();
  const size_t scales = tile::nested_group_scale_byte(g, index / 8);
  const size_t minimums = tile::nested_group_minimum_byte(g, index / 8);
  return bytes[scales] | static_cast<uint32_t>(bytes[scales + 8]) << 8 |
         static_cast<uint32_t>(bytes[minimums]) << 16 | static_cast<uint32_t>(bytes[minimums + 8]) << 24;
}

// A thread for each word of the device's panel; block_y() is the panel.
TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void repack_panels(RepackTableJob job) {
  const Global<const std::byte> file = job.file + block_y() * job.file_panel_bytes;
  const Global<std::byte> device = job.device + block_y() * job.device_panel_bytes;
  const uint32_t index = block_x() * kThreads + thread_index();
  if (index >= job.device_panel_bytes / 4) return;
  const uint32_t block_words = table_layout::block_bytes(job.bits) / 4;
  const uint32_t code_words = job.device_columns / table_layout::kBlockColumns * block_words;
  uint32_t word = 0;
  if (index < code_words) {
    const uint32_t first_column = index / block_words * table_layout::kBlockColumns;
    const table_layout::LaneWord at = table_layout::lane_word(job.bits, index % block_words);
    word = stored_word(job, file.as<const uint8_t>(), first_column, at);
  } else {
    word = job.nested ? nested_level_word(job, file, index - code_words)
                      : level_word(job, file, index - code_words);
  }
  device.as<uint32_t>().store(index, word);
}

}  // namespace

void repack_table(Queue& queue, const RepackTableJob& job) {
  for (uint32_t first = 0; first < job.panels; first += kMostPanels) {
    RepackTableJob piece = job;
    piece.file = job.file + first * job.file_panel_bytes;
    piece.device = job.device + first * job.device_panel_bytes;
    piece.panels = job.panels - first < kMostPanels ? job.panels - first : kMostPanels;
    const size_t blocks = (job.device_panel_bytes / 4 + kThreads - 1) / kThreads;
    launch(queue, {static_cast<uint32_t>(blocks), piece.panels, 1, kThreads, 0}, &repack_panels, piece);
  }
}

}  // namespace tessera::cuda
