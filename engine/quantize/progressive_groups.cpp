// w4a8-g128: rows are scaled to ±119 by a float, then each group of 128 columns to 4 bits by small integers.
#include <algorithm>
#include <array>

#include "engine/quantize/nibble_lines.h"
#include "engine/quantize/panel_codec.h"
#include "engine/quantize/rounding.h"

namespace tessera::panel {

namespace {

constexpr size_t kGroup = tile::kGroupColumns;
constexpr size_t kCodeBytes = kGroup / 8 * tile::kLineBytes;

// Largest magnitude of a first-level value. It keeps s1 at 16 or less, so that rounding moves a value by at
// most 8 and the reconstructed integer stays within ±127.
constexpr float kFirstLevel = 119.0f;

struct GroupCodes {
  std::array<uint8_t, kGroup> codes;
  uint8_t scale = 1;     // s1
  uint8_t offset = 128;  // a = 128 - z * s1
};

// values: first-level values of one group, zero where the row has ended.
void encode_group(const std::array<float, kGroup>& values, GroupCodes& out) {
  const rounding::Range range = rounding::range_with_zero(values);
  const int32_t scale = std::max(1, rounding::half_even((range.high - range.low) / 15.0f));
  const float divisor = static_cast<float>(scale);
  const uint8_t zero = rounding::half_even_clamped(-range.low / divisor, 0.0f, 15.0f);
  const float shift = zero;
  for (size_t i = 0; i < kGroup; ++i)
    out.codes[i] = rounding::half_even_clamped(values[i] / divisor + shift, 0.0f, 15.0f);
  out.scale = static_cast<uint8_t>(scale);
  out.offset = static_cast<uint8_t>(128 - zero * scale);
}

}  // namespace

void encode_progressive_groups(const Rows& rows, std::span<std::byte> panel, std::span<std::byte> scales) {
  const size_t groups = (rows.columns + kGroup - 1) / kGroup;
  std::fill(panel.begin(), panel.end(), std::byte{0});
  std::array<float, kGroup> scaled;
  GroupCodes group_codes;
  for (size_t row = 0; row < tile::kPanelRows; ++row) {
    const std::span<const float> values = row < rows.count ? rows.row(row) : std::span<const float>{};
    const float largest = rounding::largest_magnitude(values);
    if (largest == 0.0f) {  // padding or a row of zeros: codes 0 with zero point 0
      rounding::store_float(scales, row, 0.0f);
      for (size_t group = 0; group < groups; ++group) {
        panel[tile::group_scale_byte(row, group)] = std::byte{1};
        panel[tile::group_offset_byte(row, group)] = std::byte{128};
      }
      continue;
    }
    const float scale = rounding::stored_scale(static_cast<double>(largest) / kFirstLevel);
    rounding::store_float(scales, row, scale);
    for (size_t group = 0; group < groups; ++group) {
      const size_t first = group * kGroup;
      const std::span<const float> part = values.subspan(first, std::min(kGroup, rows.columns - first));
      if (part.size() < kGroup) scaled.fill(0.0f);
      for (size_t i = 0; i < part.size(); ++i) scaled[i] = part[i] / scale;
      encode_group(scaled, group_codes);
      nibble_lines::pack_row(group_codes.codes, row, panel.subspan(group * tile::kGroupBytes, kCodeBytes));
      panel[tile::group_scale_byte(row, group)] = static_cast<std::byte>(group_codes.scale);
      panel[tile::group_offset_byte(row, group)] = static_cast<std::byte>(group_codes.offset);
    }
  }
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
