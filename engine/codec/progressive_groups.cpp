// w4a8-g128: a float for each row, then 4-bit codes with a small integer scale and offset for each group of
// columns.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/codec/nibble_lines.h"
#include "engine/codec/panel_codec.h"
#include "engine/codec/rounding.h"

namespace tessera::panel {

namespace {

constexpr size_t kMostGroup = tile::kGroupColumns;

// Largest magnitude of a first-level value. It keeps s1 at 16 or less, so that rounding moves a value
// outwards by at most 8 and the reconstructed integer stays within ±127.
constexpr float kFirstLevel = 119.0f;
constexpr float kLargestByte = 127.0f;
constexpr float kHighestNibble = 15.0f;

void fit(const SchemeFacts& scheme, std::span<const float> values, double clip, RowLevels& levels) {
  levels.scale = 0;
  levels.lowest = 0;
  levels.code_offset = 0;
  levels.group_columns = scheme.group;
  levels.groups.assign((values.size() + scheme.group - 1) / scheme.group,
                       {.step = 1, .zero = 0, .highest = kHighestNibble});
  const float largest = rounding::largest_magnitude(values);
  if (largest == 0.0f) return;
  levels.scale = rounding::stored_scale(static_cast<double>(largest) * clip / kFirstLevel);
  // 119 to within rounding.
  const float limit = static_cast<float>(static_cast<double>(largest) * clip) / levels.scale;
  for (size_t g = 0; g < levels.groups.size(); ++g) {
    const size_t first = g * scheme.group;
    const size_t count = std::min(scheme.group, values.size() - first);
    const rounding::Range range = rounding::range_with_zero(values.subspan(first, count));
    // Division keeps order, so these are the extremes of the first-level values that clipping leaves.
    const float low = std::max(range.low / levels.scale, -limit);
    const float high = std::min(range.high / levels.scale, limit);
    RowLevels::Group& group = levels.groups[g];
    group.step = static_cast<float>(std::max(1, rounding::half_even((high - low) / 15.0f)));
    group.zero = rounding::half_even_clamped(-low / group.step, 0.0f, kHighestNibble);
    // Rounding a value of the group itself never goes beyond this, but error feedback may ask for more, and
    // the byte that the codes expand to must not overflow.
    group.highest = std::min(kHighestNibble, group.zero + std::floor(kLargestByte / group.step));
  }
}

void store(const CodedRow& coded, size_t row, const Panel& panel) {
  const bool padding = coded.codes.empty();
  const size_t width = panel.scheme.group;
  std::array<uint8_t, kMostGroup> codes;
  for (size_t first = 0, index = 0; first < panel.columns; first += width, ++index) {
    const RowLevels::Group group = padding ? RowLevels::Group{} : coded.levels->groups[index];
    codes.fill(static_cast<uint8_t>(group.zero));
    if (!padding) {
      const auto part = coded.codes.subspan(first, std::min(width, panel.columns - first));
      std::copy(part.begin(), part.end(), codes.begin());
    }
    nibble_lines::pack_row(
        std::span(codes).first(width), row,
        panel.codes.subspan(index * tile::progressive_group_bytes(width), width / 8 * tile::kLineBytes));
    panel.codes[tile::group_scale_byte(row, index, width)] = static_cast<std::byte>(group.step);
    panel.codes[tile::group_offset_byte(row, index, width)] =
        static_cast<std::byte>(128.0f - group.zero * group.step);
  }
  rounding::store_float(panel.row_scales, row, padding ? 0.0f : coded.levels->scale);
}

void encode(const Rows& rows, const Panel& panel) {
  encode_by_levels<RowLevels>(
      rows, panel,
      [&](std::span<const float> row, RowLevels& levels) { fit(panel.scheme, row, 1.0, levels); }, store);
}

void decode(const StoredPanel& panel, size_t row, std::span<double> out) {
  const auto scale = static_cast<double>(rounding::load_float(panel.row_scales, row));
  const size_t width = panel.scheme.group;
  std::array<uint8_t, kMostGroup> codes;
  for (size_t first = 0, group = 0; first < out.size(); first += width, ++group) {
    nibble_lines::unpack_row(
        panel.codes.subspan(group * tile::progressive_group_bytes(width), width / 8 * tile::kLineBytes), row,
        std::span(codes).first(width));
    const int32_t group_scale =
        std::to_integer<int32_t>(panel.codes[tile::group_scale_byte(row, group, width)]);
    const int32_t offset =
        std::to_integer<int32_t>(panel.codes[tile::group_offset_byte(row, group, width)]) - 128;
    const std::span<double> part = out.subspan(first, std::min(width, out.size() - first));
    for (size_t i = 0; i < part.size(); ++i)
      part[i] = scale * static_cast<double>(codes[i] * group_scale + offset);
  }
}

}  // namespace

constinit const Codec kProgressive{
    .kind = CodeKind::progressive, .encode = encode, .decode = decode, .fit = fit, .store = store};

}  // namespace tessera::panel
