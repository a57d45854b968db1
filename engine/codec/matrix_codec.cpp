#include "engine/codec/matrix_codec.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <vector>

#include "engine/codec/normal_float.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

// Whether bytes is the size of a stored matrix of this scheme and shape.
[[maybe_unused]] bool fits(Scheme scheme, size_t rows, size_t columns, size_t bytes) {
  return stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns}) == bytes;
}

std::array<float, 16> load_table(Scheme scheme, size_t rows, size_t columns,
                                 std::span<const std::byte> stored) {
  std::array<float, 16> values{};
  if (!table_format(scheme)->zero_points)
    std::memcpy(values.data(), stored.subspan(row_tail(scheme, rows, columns).table, sizeof values).data(),
                sizeof values);
  return values;
}

}  // namespace

void write_table(Scheme scheme, size_t rows, size_t columns, const ValueTable& table,
                 std::span<std::byte> out) {
  assert(fits(scheme, rows, columns, out.size()));
  assert(table_format(scheme) && !table_format(scheme)->zero_points);
  assert(table.size == size_t{1} << table_format(scheme)->bits);
  std::memcpy(out.subspan(row_tail(scheme, rows, columns).table, tile::kTableBytes).data(),
              table.values.data(), tile::kTableBytes);
}

void write_default_table(Scheme scheme, size_t rows, size_t columns, std::span<std::byte> out) {
  const std::optional<TableFormat> format = table_format(scheme);
  if (format && !format->zero_points) write_table(scheme, rows, columns, lut::normal_float(*format), out);
}

ValueTable read_table(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored) {
  const std::array<float, 16> values = load_table(scheme, rows, columns, stored);
  return make_value_table(std::span(values).first(size_t{1} << table_format(scheme)->bits));
}

void store_row(Scheme scheme, size_t rows, size_t columns, size_t row, const panel::CodedRow& coded,
               std::span<std::byte> out) {
  assert(fits(scheme, rows, columns, out.size()));
  assert(coded.codes.empty() || (row < rows && coded.codes.size() == columns));
  const size_t bytes = panel_bytes(scheme, columns);
  const RowTail tail = row_tail(scheme, rows, columns);
  const size_t first = row / tile::kPanelRows * tile::kPanelRows;
  const size_t panel_row = row - first;
  const std::span<std::byte> target = out.subspan(row / tile::kPanelRows * bytes, bytes);
  const std::span<std::byte> scales = out.subspan(tail.scales + 4 * first, 4 * tile::kPanelRows);
  if (scheme == Scheme::w8a8) {
    panel::store_per_channel_8bit(coded, columns, panel_row, target, scales);
  } else if (scheme == Scheme::w4a8) {
    panel::store_per_channel_4bit(coded, columns, panel_row, target, scales,
                                  out.subspan(tail.zeros + first, tile::kPanelRows));
  } else {
    assert(scheme == Scheme::w4a8_g128);
    panel::store_progressive_groups(coded, columns, panel_row, target, scales);
  }
}

void store_row(Scheme scheme, [[maybe_unused]] size_t rows, size_t columns, size_t row,
               const panel::CodedTableRow& coded, std::span<std::byte> out) {
  assert(fits(scheme, rows, columns, out.size()));
  assert(coded.codes.empty() || (row < rows && coded.codes.size() == columns));
  const size_t bytes = panel_bytes(scheme, columns);
  panel::store_table_groups(*table_format(scheme), coded, columns, row % tile::kPanelRows,
                            out.subspan(row / tile::kPanelRows * bytes, bytes));
}

void encode_rows(Scheme scheme, size_t rows, size_t columns, size_t first_row, size_t row_count,
                 std::span<const float> values, std::span<std::byte> out) {
  assert(fits(scheme, rows, columns, out.size()));
  assert(first_row % tile::kPanelRows == 0 && first_row + row_count <= rows);
  assert(row_count % tile::kPanelRows == 0 || first_row + row_count == rows);
  assert(values.size() == row_count * columns);
  if (const std::optional<TableFormat> format = table_format(scheme)) {
    const ValueTable table = format->zero_points ? ValueTable{} : read_table(scheme, rows, columns, out);
    TableLevels levels;
    std::vector<uint8_t> codes(columns);
    for (size_t i = 0; i < tile::round_up(row_count, tile::kPanelRows); ++i) {
      if (i < row_count) {
        const std::span<const float> row = values.subspan(i * columns, columns);
        fit_levels(*format, format->zero_points ? nullptr : &table, row, levels);
        levels.encode(0, row, codes);
      }
      store_row(scheme, rows, columns, first_row + i,
                i < row_count ? panel::CodedTableRow{&levels, codes} : panel::CodedTableRow{}, out);
    }
    return;
  }
  if (has_row_scales(scheme)) {
    RowLevels levels;
    std::vector<uint8_t> codes(columns);
    for (size_t i = 0; i < tile::round_up(row_count, tile::kPanelRows); ++i) {
      if (i < row_count) {
        const std::span<const float> row = values.subspan(i * columns, columns);
        fit_levels(scheme, row, 1.0f, levels);
        levels.encode(0, row, codes);
      }
      store_row(scheme, rows, columns, first_row + i,
                i < row_count ? panel::CodedRow{&levels, codes} : panel::CodedRow{}, out);
    }
    return;
  }
  const size_t bytes = panel_bytes(scheme, columns);
  for (size_t done = 0; done < row_count; done += tile::kPanelRows) {
    const size_t count = std::min(tile::kPanelRows, row_count - done);
    const panel::Rows part{count, columns, values.subspan(done * columns, count * columns)};
    const std::span<std::byte> target = out.subspan((first_row + done) / tile::kPanelRows * bytes, bytes);
    if (scheme == Scheme::f32) {
      panel::encode_f32(part, target);
    } else if (scheme == Scheme::f16) {
      panel::encode_f16(part, target);
    } else {
      assert(scheme == Scheme::bf16);
      panel::encode_bf16(part, target);
    }
  }
}

void decode_row(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored, size_t row,
                std::span<double> out) {
  assert(fits(scheme, rows, columns, stored.size()));
  assert(row < rows && out.size() == columns);
  const size_t bytes = panel_bytes(scheme, columns);
  const std::span<const std::byte> source = stored.subspan(row / tile::kPanelRows * bytes, bytes);
  const size_t panel_row = row % tile::kPanelRows;
  if (const std::optional<TableFormat> format = table_format(scheme)) {
    const std::array<float, 16> table = load_table(scheme, rows, columns, stored);
    panel::decode_table_groups(*format, source, table, panel_row, out);
    return;
  }
  const RowTail tail = row_tail(scheme, rows, columns);
  const auto scale = [&] {
    float value = 0;
    std::memcpy(&value, stored.subspan(tail.scales + 4 * row, 4).data(), 4);
    return value;
  };
  switch (scheme) {
    case Scheme::f32:
      panel::decode_f32(source, panel_row, out);
      break;
    case Scheme::f16:
      panel::decode_f16(source, panel_row, out);
      break;
    case Scheme::bf16:
      panel::decode_bf16(source, panel_row, out);
      break;
    case Scheme::w8a8:
      panel::decode_per_channel_8bit(source, panel_row, scale(), out);
      break;
    case Scheme::w4a8:
      panel::decode_per_channel_4bit(source, panel_row, scale(),
                                     std::to_integer<uint8_t>(stored[tail.zeros + row]), out);
      break;
    case Scheme::w4a8_g128:
      panel::decode_progressive_groups(source, panel_row, scale(), out);
      break;
    case Scheme::u8:
    case Scheme::u32:
      break;  // no matrix fits these: asserted above
  }
}

}  // namespace tessera
