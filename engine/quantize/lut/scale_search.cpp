#include "engine/quantize/lut/scale_search.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>

namespace tessera::quantize {

namespace {

constexpr size_t kLargestGroup = 256;
constexpr size_t kScales = 64;
constexpr double kWidest = 1.15;
constexpr double kNarrower = 0.965;
constexpr size_t kRanges = 17;
constexpr double kRangeStep = 0.04;
constexpr int kRefits = 2;

// The values of one group and what each counts.
struct Weighted {
  std::span<const float> values;
  std::span<const float> importance;  // empty: 1
  bool counts = false;                // whether any importance is above 0

  Weighted(std::span<const float> group, std::span<const float> weights) : values(group) {
    counts = std::any_of(weights.begin(), weights.end(), [](float weight) { return weight > 0; });
    if (counts) importance = weights;
  }
  double weight(size_t i) const { return importance.empty() ? 1.0 : static_cast<double>(importance[i]); }
};

// The group in rising order with running sums, so that the error of any scale costs one step for each code
// rather than one for each value.
class SortedGroup {
 public:
  void fill(const Weighted& group) {
    count_ = group.values.size();
    for (size_t i = 0; i < count_; ++i) sorted_[i] = {group.values[i], group.weight(i)};
    std::sort(sorted_.begin(), sorted_.begin() + static_cast<std::ptrdiff_t>(count_),
              [](const Value& a, const Value& b) { return a.value < b.value; });
    power_ = 0;
    for (size_t i = 0; i < count_; ++i) {
      const double value = static_cast<double>(sorted_[i].value);
      const double moment = sorted_[i].weight * value;
      weights_[i + 1] = weights_[i] + sorted_[i].weight;
      moments_[i + 1] = moments_[i] + moment;
      power_ += moment * value;
    }
    power_ = std::max(power_, 0.0);
  }

  // Codes that a scale gives: code c belongs to values ends[c] … ends[c + 1] - 1. Scales may come in any
  // order; those that fall slowly are found fastest.
  void divide(const ValueTable& table, double scale) {
    ends_[0] = 0;
    ends_[table.size] = count_;
    for (size_t i = 0; i + 1 < table.size; ++i) {
      const double limit = static_cast<double>(table.limits[i]) * scale;
      size_t end = std::min(ends_[i + 1], count_);
      while (end > 0 && static_cast<double>(sorted_[end - 1].value) > limit) --end;
      while (end < count_ && static_cast<double>(sorted_[end].value) <= limit) ++end;
      ends_[i + 1] = end;
    }
  }

  // With these codes the error of scale s is power - 2 s first + s^2 second.
  struct Products {
    double first = 0, second = 0;
  };
  Products products(const ValueTable& table) const {
    Products sums;
    for (size_t code = 0; code < table.size; ++code) {
      const double value = static_cast<double>(table.values[code]);
      sums.first += value * (moments_[ends_[code + 1]] - moments_[ends_[code]]);
      sums.second += value * value * (weights_[ends_[code + 1]] - weights_[ends_[code]]);
    }
    return sums;
  }
  double error(const Products& sums, double scale) const {
    return power_ - scale * (2 * sums.first - scale * sums.second);
  }

 private:
  struct Value {
    float value;
    double weight;
  };
  size_t count_ = 0;
  double power_ = 0;
  std::array<Value, kLargestGroup> sorted_;
  std::array<double, kLargestGroup + 1> weights_{};  // running sums of weight
  std::array<double, kLargestGroup + 1> moments_{};  // and of weight * value
  std::array<size_t, 17> ends_{};
};

void search_scale(const ValueTable& table, const Weighted& values, SortedGroup& group,
                  TableLevels::Group& found) {
  if (found.scale == 0.0f) return;
  group.fill(values);
  const double plain = static_cast<double>(found.scale);
  double best = std::numeric_limits<double>::infinity();
  double scale = plain * kWidest;
  for (size_t k = 0; k <= kScales; ++k, scale *= kNarrower) {
    group.divide(table, k < kScales ? scale : plain);
    const SortedGroup::Products sums = group.products(table);
    if (!(sums.first > 0 && sums.second > 0)) continue;
    const float stored = stored_group_scale(sums.first / sums.second);
    if (!(stored > 0 && std::isfinite(stored))) continue;
    const double error = group.error(sums, static_cast<double>(stored));
    if (!(error < best)) continue;
    best = error;
    found.scale = stored;
  }
}

// Codes of a scale and zero point, their error, and the sums for the best line through them.
struct Line {
  double error = 0;
  double weight = 0, code = 0, value = 0, code_code = 0, code_value = 0;
};

Line line_through(const Weighted& group, const TableLevels::Group& levels) {
  Line line;
  const TableLevels coder{.table = nullptr, .group_columns = 1, .groups = {}};
  for (size_t i = 0; i < group.values.size(); ++i) {
    const int32_t chosen = coder.code(group.values[i], levels);
    const double code = chosen;
    const double value = static_cast<double>(group.values[i]);
    const double weight = group.weight(i);
    const double difference =
        value - static_cast<double>(levels.scale) * (code - static_cast<double>(levels.zero));
    line.error += weight * difference * difference;
    line.weight += weight;
    line.code += weight * code;
    line.value += weight * value;
    line.code_code += weight * code * code;
    line.code_value += weight * code * value;
  }
  return line;
}

void search_line(const Weighted& group, TableLevels::Group& found) {
  if (found.scale == 0.0f) return;
  const TableLevels::Group plain = found;
  double best = std::numeric_limits<double>::infinity();
  for (size_t k = 0; k < kRanges; ++k) {
    TableLevels::Group levels = plain;
    const double share = 1.0 - kRangeStep * static_cast<double>(k);
    levels.scale = stored_group_scale(static_cast<double>(plain.scale) * share);
    if (levels.scale == 0.0f) break;
    // The middle of the range, code 7.5, keeps its meaning.
    levels.zero = stored_group_zero(7.5 - (7.5 - static_cast<double>(plain.zero)) / share);
    for (int refit = 0; refit <= kRefits; ++refit) {
      const Line line = line_through(group, levels);
      if (line.error < best) {
        best = line.error;
        found = levels;
      }
      const double spread = line.weight * line.code_code - line.code * line.code;
      const double slope = (line.weight * line.code_value - line.code * line.value) / spread;
      const float scale = stored_group_scale(slope);
      if (!(spread > 0 && scale > 0 && std::isfinite(scale))) break;
      levels.scale = scale;
      levels.zero =
          stored_group_zero((line.code - line.value / static_cast<double>(levels.scale)) / line.weight);
    }
  }
}

}  // namespace

void search_levels(const TableFormat& format, const ValueTable* table, std::span<const float> values,
                   std::span<const float> importance, TableLevels& levels) {
  assert(importance.empty() || importance.size() == values.size());
  fit_levels(format, table, values, levels);
  SortedGroup sorted;
  for (size_t g = 0; g < levels.groups.size(); ++g) {
    const size_t first = g * format.group;
    const size_t count = std::min(format.group, values.size() - first);
    const Weighted group(values.subspan(first, count),
                         importance.empty() ? importance : importance.subspan(first, count));
    if (table != nullptr)
      search_scale(*table, group, sorted, levels.groups[g]);
    else
      search_line(group, levels.groups[g]);
  }
}

}  // namespace tessera::quantize
