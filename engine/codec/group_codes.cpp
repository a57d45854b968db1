// int8-gG, int4m and int4k: codes of 4 or 8 bits with a scale, and perhaps a minimum, for each group of
// columns of a row.
#include <algorithm>
#include <array>

#include "engine/codec/panel_codec.h"
#include "engine/codec/unit_codes.h"
#include "gguf-like-format/level_places.h"

namespace tessera::panel {

namespace {

constexpr size_t kUnit = tile::kTableUnitColumns;

// The first byte of the codes of a unit of columns in a panel.
size_t unit_byte(const LevelPlaces& places, size_t column) {
  return places.nested
             ? tile::nested_unit_byte(column)
             : tile::table_unit_byte(places.scheme.bits, places.scheme.group, places.offsets, column);
}

// Padding columns hold the code that int8 means 0 by, or 0: their inputs are 0.
void store(const CodedGroupRow& coded, size_t row, const Panel& panel) {
  const LevelPlaces places{panel.scheme};
  const bool padding = coded.codes.empty();
  const size_t columns = tile::round_up(panel.columns, panel.scheme.column_pad);
  const uint8_t zero = panel.scheme.kind == CodeKind::int8 ? 128 : 0;
  std::array<uint8_t, kUnit> codes;
  for (size_t first = 0; first < columns; first += kUnit) {
    codes.fill(zero);
    if (!padding && first < panel.columns) {
      const auto part = coded.codes.subspan(first, std::min(kUnit, panel.columns - first));
      std::copy(part.begin(), part.end(), codes.begin());
    }
    unit_codes::pack(panel.scheme.bits, codes, row,
                     panel.codes.subspan(unit_byte(places, first), panel.scheme.bits * tile::kLineBytes));
  }
  for (size_t index = 0; index < columns / panel.scheme.column_pad; ++index) {
    unit_codes::store_half(panel.codes, places.scale(row, index),
                           padding ? 0.0f : coded.levels->scales[index]);
    if (places.offsets)
      unit_codes::store_half(panel.codes, places.offset(row, index),
                             padding ? 0.0f : coded.levels->minimums[index]);
  }
  if (!places.nested) return;
  for (size_t group = 0; group < columns / panel.scheme.group; ++group) {
    const bool real = !padding && group < coded.levels->group_scales.size();
    panel.codes[tile::nested_group_scale_byte(row, group)] =
        static_cast<std::byte>(real ? coded.levels->group_scales[group] : 0);
    panel.codes[tile::nested_group_minimum_byte(row, group)] =
        static_cast<std::byte>(real ? coded.levels->group_minimums[group] : 0);
  }
}

void encode(const Rows& rows, const Panel& panel) {
  encode_by_levels<GroupLevels>(
      rows, panel,
      [&](std::span<const float> row, GroupLevels& levels) { fit_levels(panel.scheme, row, levels); }, store);
}

void decode(const StoredPanel& panel, size_t row, std::span<double> out) {
  const LevelPlaces places{panel.scheme};
  const int32_t zero = panel.scheme.kind == CodeKind::int8 ? 128 : 0;
  std::array<uint8_t, kUnit> codes;
  for (size_t first = 0; first < out.size(); first += kUnit) {
    const size_t index = first / panel.scheme.column_pad;
    double scale = static_cast<double>(unit_codes::load_half(panel.codes, places.scale(row, index)));
    double minimum = 0;
    if (places.offsets)
      minimum = static_cast<double>(unit_codes::load_half(panel.codes, places.offset(row, index)));
    if (places.nested) {
      const size_t group = first / panel.scheme.group;
      scale *= std::to_integer<int32_t>(panel.codes[tile::nested_group_scale_byte(row, group)]);
      minimum *= -std::to_integer<int32_t>(panel.codes[tile::nested_group_minimum_byte(row, group)]);
    }
    unit_codes::unpack(panel.scheme.bits,
                       panel.codes.subspan(unit_byte(places, first), panel.scheme.bits * tile::kLineBytes),
                       row, codes);
    const auto part = out.subspan(first, std::min(kUnit, out.size() - first));
    for (size_t i = 0; i < part.size(); ++i) part[i] = scale * (codes[i] - zero) + minimum;
  }
}

constexpr Codec codec(CodeKind kind) {
  return {.kind = kind, .encode = encode, .decode = decode, .store_groups = store};
}

}  // namespace

constinit const Codec kInt8 = codec(CodeKind::int8);
constinit const Codec kInt4m = codec(CodeKind::int4m);
constinit const Codec kInt4k = codec(CodeKind::int4k);

}  // namespace tessera::panel
