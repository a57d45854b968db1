#include "engine/codec/group_levels.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "engine/codec/rounding.h"
#include "engine/codec/table_levels.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

constexpr float kHighestNibble = 15.0f;
constexpr double kLargestFactor = 255.0;   // of an int4k group
constexpr double kHalfOverflow = 65520.0;  // f16 rounds this and more to infinity

// scale * q + minimum for q = 0 … 15, not yet rounded as it is stored.
struct Line {
  double scale = 0;
  double minimum = 0;
};

double code_of(float value, const Line& line) {
  if (line.scale == 0) return 0;
  return std::nearbyint(std::clamp((static_cast<double>(value) - line.minimum) / line.scale, 0.0, 15.0));
}

double squared_error(std::span<const float> values, const Line& line) {
  double sum = 0;
  for (const float value : values) {
    const double error = static_cast<double>(value) - (line.scale * code_of(value, line) + line.minimum);
    sum += error * error;
  }
  return sum;
}

// The line of least squared error for the codes that `line` gives. Where minimums may not be positive, it is
// the best of those through 0 instead.
Line refitted(std::span<const float> values, const Line& line, bool below_zero) {
  double ones = 0;
  double codes = 0;
  double squares = 0;
  double sum = 0;
  double products = 0;
  for (const float value : values) {
    const double code = code_of(value, line);
    ones += 1;
    codes += code;
    squares += code * code;
    sum += static_cast<double>(value);
    products += code * static_cast<double>(value);
  }
  const double determinant = ones * squares - codes * codes;
  if (!(determinant > 0)) return line;
  const Line best{(ones * products - codes * sum) / determinant,
                  (squares * sum - codes * products) / determinant};
  if (!below_zero || best.minimum <= 0) return best;
  return {squares > 0 ? products / squares : 0.0, 0.0};
}

// below_zero: minimums that are not positive, as int4k has them.
Line fitted_line(std::span<const float> values, bool below_zero) {
  double low = *std::min_element(values.begin(), values.end());
  const double high = *std::max_element(values.begin(), values.end());
  if (below_zero) low = std::min(low, 0.0);
  Line best{std::max(high - low, 0.0) / 15.0, low};
  double least = squared_error(values, best);
  for (const double narrowing : {1.0, 0.92, 0.84, 0.76}) {
    const double width = (high - low) * narrowing;
    const double start = below_zero ? low * narrowing : low + ((high - low) - width) / 2;
    const Line line = refitted(values, {std::max(width, 0.0) / 15.0, start}, below_zero);
    const double error = squared_error(values, line);
    if (error < least) {
      least = error;
      best = line;
    }
  }
  return best;
}

std::span<const float> group_of(std::span<const float> values, size_t group, size_t columns) {
  const size_t first = group * columns;
  return values.subspan(first, std::min(columns, values.size() - first));
}

uint8_t factor_of(double value, float unit) {
  if (unit == 0.0f) return 0;
  return static_cast<uint8_t>(
      std::nearbyint(std::clamp(value / static_cast<double>(unit), 0.0, kLargestFactor)));
}

void fit_blocks(std::span<const float> values, GroupLevels& levels) {
  const size_t groups = (values.size() + tile::kNestedGroup - 1) / tile::kNestedGroup;
  std::vector<Line> lines;
  for (size_t g = 0; g < groups; ++g)
    lines.push_back(fitted_line(group_of(values, g, tile::kNestedGroup), true));
  for (size_t first = 0; first < groups; first += tile::kNestedGroups) {
    const std::span<const Line> block =
        std::span(lines).subspan(first, std::min(tile::kNestedGroups, groups - first));
    double scale = 0;
    double depth = 0;
    for (const Line& line : block) {
      scale = std::max(scale, line.scale);
      depth = std::max(depth, -line.minimum);
    }
    levels.scales.push_back(stored_group_scale(scale / kLargestFactor));
    levels.minimums.push_back(stored_group_scale(depth / kLargestFactor));
    for (const Line& line : block) {
      levels.group_scales.push_back(factor_of(line.scale, levels.scales.back()));
      levels.group_minimums.push_back(factor_of(-line.minimum, levels.minimums.back()));
    }
  }
}

}  // namespace

GroupLevels::Meaning GroupLevels::meaning(size_t group) const {
  if (kind == CodeKind::int8) return {scales[group], 0.0f, 128};
  if (kind == CodeKind::int4m) return {scales[group], minimums[group], 0};
  const size_t block = group / tile::kNestedGroups;
  return {scales[block] * static_cast<float>(group_scales[group]),
          0.0f - minimums[block] * static_cast<float>(group_minimums[group]), 0};
}

void GroupLevels::encode(size_t first, std::span<const float> values, std::span<uint8_t> codes) const {
  assert(codes.size() == values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const Meaning level = meaning((first + i) / group_columns);
    const float steps = level.scale == 0.0f ? 0.0f : (values[i] - level.minimum) / level.scale;
    codes[i] = kind == CodeKind::int8
                   ? static_cast<uint8_t>(rounding::half_even(std::clamp(steps, -128.0f, 127.0f)) + 128)
                   : rounding::half_even_clamped(steps, 0.0f, kHighestNibble);
  }
}

void GroupLevels::round(std::span<const float> values, std::span<float> out) const {
  std::vector<uint8_t> codes(values.size());
  encode(0, values, codes);
  for (size_t i = 0; i < values.size(); ++i) {
    const Meaning level = meaning(i / group_columns);
    out[i] = level.scale * static_cast<float>(codes[i] - level.zero) + level.minimum;
  }
}

void fit_levels(const SchemeFacts& scheme, std::span<const float> values, GroupLevels& levels) {
  levels.kind = scheme.kind;
  levels.group_columns = scheme.group;
  levels.scales.clear();
  levels.minimums.clear();
  levels.group_scales.clear();
  levels.group_minimums.clear();
  if (scheme.kind == CodeKind::int4k) return fit_blocks(values, levels);
  const size_t groups = (values.size() + scheme.group - 1) / scheme.group;
  for (size_t g = 0; g < groups; ++g) {
    const std::span<const float> part = group_of(values, g, scheme.group);
    if (scheme.kind == CodeKind::int8) {
      levels.scales.push_back(
          stored_group_scale(static_cast<double>(rounding::largest_magnitude(part)) / 127.0));
      continue;
    }
    const Line line = fitted_line(part, false);
    levels.scales.push_back(stored_group_scale(line.scale));
    levels.minimums.push_back(stored_group_scale(line.minimum));
  }
}

double magnitude_limit(CodeKind kind) {
  switch (kind) {
    case CodeKind::int8:
      return kHalfOverflow * 127;
    case CodeKind::int4m:
      return kHalfOverflow;
    case CodeKind::int4k:
      return kHalfOverflow * kLargestFactor;
    default:
      return std::numeric_limits<double>::infinity();
  }
}

}  // namespace tessera
