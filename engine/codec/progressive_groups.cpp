// w4a8-g128: a float for each row, then 4-bit codes with a small integer scale and offset for each group of
// 128 columns.
#include <algorithm>
#include <array>

#include "engine/codec/nibble_lines.h"
#include "engine/codec/panel_codec.h"
#include "engine/codec/rounding.h"

namespace tessera::panel {

namespace {

constexpr size_t kGroup = tile::kGroupColumns;
constexpr size_t kCodeBytes = kGroup / 8 * tile::kLineBytes;

}  // namespace

void store_progressive_groups(const CodedRow& coded, size_t columns, size_t row, std::span<std::byte> panel,
                              std::span<std::byte> scales) {
  std::array<uint8_t, kGroup> codes;
  for (size_t first = 0, index = 0; first < columns; first += kGroup, ++index) {
    const bool padding = coded.codes.empty();
    const RowLevels::Group group = padding ? RowLevels::Group{} : coded.levels->groups[index];
    codes.fill(static_cast<uint8_t>(group.zero));
    if (!padding) {
      const auto part = coded.codes.subspan(first, std::min(kGroup, columns - first));
      std::copy(part.begin(), part.end(), codes.begin());
    }
    nibble_lines::pack_row(codes, row, panel.subspan(index * tile::kGroupBytes, kCodeBytes));
    panel[tile::group_scale_byte(row, index)] = static_cast<std::byte>(group.step);
    panel[tile::group_offset_byte(row, index)] = static_cast<std::byte>(128.0f - group.zero * group.step);
  }
  rounding::store_float(scales, row, coded.codes.empty() ? 0.0f : coded.levels->scale);
}

void decode_progressive_groups(std::span<const std::byte> panel, size_t row, float scale,
                               std::span<double> out) {
  std::array<uint8_t, kGroup> codes;
  for (size_t first = 0, group = 0; first < out.size(); first += kGroup, ++group) {
    nibble_lines::unpack_row(panel.subspan(group * tile::kGroupBytes, kCodeBytes), row, codes);
    const int32_t group_scale = std::to_integer<int32_t>(panel[tile::group_scale_byte(row, group)]);
    const int32_t offset = std::to_integer<int32_t>(panel[tile::group_offset_byte(row, group)]) - 128;
    const std::span<double> part = out.subspan(first, std::min(kGroup, out.size() - first));
    for (size_t i = 0; i < part.size(); ++i)
      part[i] = static_cast<double>(scale) * static_cast<double>(codes[i] * group_scale + offset);
  }
}

}  // namespace tessera::panel
