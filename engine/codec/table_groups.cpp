// Table schemes: codes of 2 to 4 bits with an f16 scale, and perhaps a zero point, for each group of columns
// of a row.
#include <algorithm>
#include <array>
#include <cstring>

#include "engine/codec/panel_codec.h"
#include "engine/codec/unit_codes.h"

namespace tessera::panel {

namespace {

constexpr size_t kUnit = tile::kTableUnitColumns;
constexpr size_t kLargestGroup = 256;

TableFormat format_of(const SchemeFacts& scheme) {
  return {scheme.bits, scheme.group, !scheme.table, scheme.activations == ActivationType::int8};
}

std::array<float, 16> load_table(std::span<const std::byte> table) {
  std::array<float, 16> values{};
  if (!table.empty()) std::memcpy(values.data(), table.data(), sizeof values);
  return values;
}

// Padding columns hold code 0.
void store(const CodedTableRow& coded, size_t row, const Panel& panel) {
  const TableFormat format = format_of(panel.scheme);
  std::array<uint8_t, kLargestGroup> codes;
  for (size_t first = 0, index = 0; first < panel.columns; first += format.group, ++index) {
    const TableLevels::Group group = coded.codes.empty() ? TableLevels::Group{} : coded.levels->groups[index];
    codes.fill(0);  // what padding columns hold means nothing: their inputs are 0
    if (!coded.codes.empty()) {
      const auto part = coded.codes.subspan(first, std::min(format.group, panel.columns - first));
      std::copy(part.begin(), part.end(), codes.begin());
    }
    for (size_t unit = 0; unit < format.group; unit += kUnit) {
      const size_t at = tile::table_unit_byte(format.bits, format.group, format.zero_points, first + unit);
      unit_codes::pack(format.bits, std::span(codes).subspan(unit, kUnit), row,
                       panel.codes.subspan(at, format.bits * tile::kLineBytes));
    }
    unit_codes::store_half(panel.codes,
                           tile::table_scale_byte(format.bits, format.group, format.zero_points, row, index),
                           group.scale);
    if (format.zero_points)
      unit_codes::store_half(panel.codes, tile::table_zero_byte(format.bits, format.group, row, index),
                             group.zero);
  }
}

void encode(const Rows& rows, const Panel& panel) {
  const TableFormat format = format_of(panel.scheme);
  ValueTable table;
  if (!format.zero_points) {
    const std::array<float, 16> values = load_table(panel.table);
    table = make_value_table(std::span(values).first(size_t{1} << format.bits));
  }
  encode_by_levels<TableLevels>(
      rows, panel,
      [&](std::span<const float> row, TableLevels& levels) {
        fit_levels(format, format.zero_points ? nullptr : &table, row, levels);
      },
      store);
}

void decode(const StoredPanel& panel, size_t row, std::span<double> out) {
  const TableFormat format = format_of(panel.scheme);
  const std::array<float, 16> table = load_table(panel.table);
  std::array<uint8_t, kUnit> codes;
  for (size_t first = 0; first < out.size(); first += kUnit) {
    const size_t index = first / format.group;
    const double scale = static_cast<double>(unit_codes::load_half(
        panel.codes, tile::table_scale_byte(format.bits, format.group, format.zero_points, row, index)));
    const size_t at = tile::table_unit_byte(format.bits, format.group, format.zero_points, first);
    unit_codes::unpack(format.bits, panel.codes.subspan(at, format.bits * tile::kLineBytes), row, codes);
    const auto part = out.subspan(first, std::min(kUnit, out.size() - first));
    if (format.zero_points) {
      const double zero = static_cast<double>(
          unit_codes::load_half(panel.codes, tile::table_zero_byte(format.bits, format.group, row, index)));
      for (size_t i = 0; i < part.size(); ++i) part[i] = scale * (static_cast<double>(codes[i]) - zero);
    } else {
      for (size_t i = 0; i < part.size(); ++i) part[i] = scale * static_cast<double>(table[codes[i]]);
    }
  }
}

constexpr Codec codec(CodeKind kind) {
  return {.kind = kind, .encode = encode, .decode = decode, .store_table = store};
}

}  // namespace

constinit const Codec kLut2 = codec(CodeKind::lut2);
constinit const Codec kLut3 = codec(CodeKind::lut3);
constinit const Codec kLut4 = codec(CodeKind::lut4);
constinit const Codec kInt4 = codec(CodeKind::int4);

}  // namespace tessera::panel
