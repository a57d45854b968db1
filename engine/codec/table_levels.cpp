#include "engine/codec/table_levels.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "gguf-like-format/float_types.h"

namespace tessera {

namespace {

constexpr double kHighestCode = 15.0;
constexpr double kHalfOverflow = 65520.0;  // f16 rounds this and more to infinity

}  // namespace

ValueTable make_value_table(std::span<const float> values) {
  assert(values.size() == 4 || values.size() == 8 || values.size() == 16);
  assert(std::is_sorted(values.begin(), values.end()));
  ValueTable table;
  table.size = values.size();
  std::copy(values.begin(), values.end(), table.values.begin());
  table.limits.fill(std::numeric_limits<float>::infinity());
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    const float middle = (values[i] + values[i + 1]) * 0.5f;
    // Code i + 1 begins above the middle, or at the middle itself when it is the even one of the two.
    table.limits[i] = i % 2 == 0 ? middle : std::nextafter(middle, -std::numeric_limits<float>::infinity());
  }
  table.largest = rounding::largest_magnitude(values);
  table.zero_code = static_cast<uint8_t>(table.nearest(0.0f));
  return table;
}

float stored_entry(const TableFormat& format, double value) {
  if (format.int8_activations)
    return static_cast<float>(std::nearbyint(std::clamp(value, -1.0, 1.0) * 127.0) / 127.0);
  return bf16_to_f32(f32_to_bf16(static_cast<float>(value)));
}

float stored_group_scale(double exact) { return f16_to_f32(f32_to_f16(static_cast<float>(exact))); }

float stored_group_zero(double exact) {
  return f16_to_f32(f32_to_f16(static_cast<float>(std::clamp(exact, 0.0, kHighestCode))));
}

double magnitude_limit(const TableFormat& format) {
  return format.zero_points ? kHalfOverflow * kHighestCode / 2 : kHalfOverflow;
}

void fit_levels(const TableFormat& format, const ValueTable* table, std::span<const float> values,
                TableLevels& levels) {
  assert((table == nullptr) == format.zero_points);
  levels.table = table;
  levels.group_columns = format.group;
  levels.groups.assign((values.size() + format.group - 1) / format.group, {});
  for (size_t g = 0; g < levels.groups.size(); ++g) {
    const size_t first = g * format.group;
    const auto part = values.subspan(first, std::min(format.group, values.size() - first));
    TableLevels::Group& group = levels.groups[g];
    if (table != nullptr) {
      group.scale = stored_group_scale(static_cast<double>(rounding::largest_magnitude(part)) /
                                       static_cast<double>(table->largest));
      continue;
    }
    const rounding::Range range = rounding::range_with_zero(part);
    const double low = static_cast<double>(range.low);
    group.scale = stored_group_scale((static_cast<double>(range.high) - low) / kHighestCode);
    // 0 minus, so that the zero point of a group without negative values is not -0.
    if (group.scale > 0) group.zero = stored_group_zero((0.0 - low) / static_cast<double>(group.scale));
  }
}

void TableLevels::encode(size_t first, std::span<const float> values, std::span<uint8_t> codes) const {
  assert(codes.size() == values.size());
  for (size_t start = 0; start < values.size();) {
    const size_t column = first + start;
    const size_t end = std::min(values.size(), start + group_columns - column % group_columns);
    const Group group = group_of(column);
    for (size_t i = start; i < end; ++i) codes[i] = static_cast<uint8_t>(code(values[i], group));
    start = end;
  }
}

void TableLevels::round(std::span<const float> values, std::span<float> out) const {
  assert(out.size() == values.size());
  for (size_t start = 0; start < values.size(); start += group_columns) {
    const size_t end = std::min(values.size(), start + group_columns);
    const Group group = group_of(start);
    for (size_t i = start; i < end; ++i) out[i] = meaning(code(values[i], group), group);
  }
}

}  // namespace tessera
