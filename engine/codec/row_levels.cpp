#include "engine/codec/row_levels.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

// Largest magnitude of a first-level value. It keeps s1 at 16 or less, so that rounding moves a value
// outwards by at most 8 and the reconstructed integer stays within ±127.
constexpr float kFirstLevel = 119.0f;
constexpr float kLargestByte = 127.0f;
constexpr float kHighestNibble = 15.0f;

void fit_signed_bytes(std::span<const float> values, double clip, RowLevels& levels) {
  levels.lowest = -127;
  levels.code_offset = 128;
  levels.group_columns = std::max<size_t>(1, values.size());
  levels.groups.assign(1, {.step = 1, .zero = 0, .highest = 127});
  const float largest = rounding::largest_magnitude(values);
  if (largest != 0.0f) levels.scale = rounding::stored_scale(static_cast<double>(largest) * clip / 127.0);
}

void fit_row_nibbles(std::span<const float> values, double clip, RowLevels& levels) {
  levels.group_columns = std::max<size_t>(1, values.size());
  levels.groups.assign(1, {.step = 1, .zero = 0, .highest = kHighestNibble});
  const rounding::Range range = rounding::range_with_zero(values);
  if (range.low == range.high) return;
  // In float64, where the difference of two large floats cannot overflow.
  const double width = static_cast<double>(range.high) - static_cast<double>(range.low);
  levels.scale = rounding::stored_scale(width * clip / 15.0);
  const auto low = static_cast<float>(static_cast<double>(range.low) * clip);
  levels.groups[0].zero = rounding::half_even_clamped(-low / levels.scale, 0.0f, kHighestNibble);
}

void fit_groups(std::span<const float> values, double clip, RowLevels& levels) {
  levels.group_columns = tile::kGroupColumns;
  levels.groups.assign((values.size() + tile::kGroupColumns - 1) / tile::kGroupColumns,
                       {.step = 1, .zero = 0, .highest = kHighestNibble});
  const float largest = rounding::largest_magnitude(values);
  if (largest == 0.0f) return;
  levels.scale = rounding::stored_scale(static_cast<double>(largest) * clip / kFirstLevel);
  // 119 to within rounding.
  const float limit = static_cast<float>(static_cast<double>(largest) * clip) / levels.scale;
  for (size_t g = 0; g < levels.groups.size(); ++g) {
    const size_t first = g * tile::kGroupColumns;
    const size_t count = std::min(tile::kGroupColumns, values.size() - first);
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

}  // namespace

void fit_levels(Scheme scheme, std::span<const float> values, float clip, RowLevels& levels) {
  assert(clip > 0.0f && clip <= 1.0f);
  levels.scale = 0;
  levels.lowest = 0;
  levels.code_offset = 0;
  switch (scheme) {
    case Scheme::w8a8:
      return fit_signed_bytes(values, static_cast<double>(clip), levels);
    case Scheme::w4a8:
      return fit_row_nibbles(values, static_cast<double>(clip), levels);
    case Scheme::w4a8_g128:
      return fit_groups(values, static_cast<double>(clip), levels);
    default:
      assert(false);  // floats have no levels
  }
}

void RowLevels::encode(size_t first, std::span<const float> values, std::span<uint8_t> codes) const {
  assert(codes.size() == values.size());
  if (scale == 0.0f) {
    std::fill(codes.begin(), codes.end(), static_cast<uint8_t>(code_offset));
    return;
  }
  for (size_t start = 0; start < values.size();) {
    const size_t column = first + start;
    const size_t end = std::min(values.size(), start + group_columns - column % group_columns);
    const Group group = group_of(column);
    for (size_t i = start; i < end; ++i) codes[i] = static_cast<uint8_t>(code(values[i], group));
    start = end;
  }
}

void RowLevels::round(std::span<const float> values, std::span<float> out) const {
  assert(out.size() == values.size());
  if (scale == 0.0f) {
    std::fill(out.begin(), out.end(), 0.0f);
    return;
  }
  for (size_t start = 0; start < values.size(); start += group_columns) {
    const size_t end = std::min(values.size(), start + group_columns);
    const Group group = group_of(start);
    for (size_t i = start; i < end; ++i) out[i] = meaning(code(values[i], group), group);
  }
}

}  // namespace tessera
