#include "engine/quantize/plan/rounding_error.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/codec/matrix_codec.h"

namespace tessera {

// Lanes let the compiler vectorize sums whose order it must keep.
void ErrorSums::add_row(std::span<const float> values, std::span<const double> decoded) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> errors{};
  std::array<double, kLanes> powers{};
  const auto add = [&](size_t i, size_t lane) {
    const double value = values[i];
    const double difference = value - decoded[i];
    errors[lane] += difference * difference;
    powers[lane] += value * value;
  };
  const size_t whole = values.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  for (size_t i = whole; i < values.size(); ++i) add(i, i - whole);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    error += errors[lane];
    power += powers[lane];
  }
}

ErrorSums rounding_error(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored,
                         size_t first_row, std::span<const float> values) {
  ErrorSums sums;
  std::vector<double> decoded(columns);
  for (size_t done = 0; done * columns < values.size(); ++done) {
    decode_row(scheme, rows, columns, stored, first_row + done, decoded);
    sums.add_row(values.subspan(done * columns, columns), decoded);
  }
  return sums;
}

void SummaryTable::add(const PlannedWeight& weight, uint64_t bytes, const ErrorSums& sums) {
  QuantizeSummary line;
  line.kind = role_label(weight.expected.role);
  if (by_source_) line.source = weight.source->type;
  line.scheme = scheme_name(weight.scheme);
  line.kept = weight.kept || (weight.source->code_bits == 0 && weight.scheme == weight.source->precision);
  auto entry = std::find_if(open_.begin(), open_.end(), [&](const Open& each) {
    return each.line.kind == line.kind && each.line.source == line.source &&
           each.line.scheme == line.scheme && each.line.kept == line.kept;
  });
  if (entry == open_.end()) {
    open_.push_back({std::move(line), {}});
    entry = open_.end() - 1;
  }
  if (weight.kept) entry->line.rounds.add(weight.kept->rounds);
  entry->line.tensors += 1;
  entry->line.weights += weight.elements();
  entry->line.bytes += bytes;
  entry->sums.add(sums);
}

std::vector<QuantizeSummary> SummaryTable::lines() const {
  std::vector<QuantizeSummary> lines;
  for (const Open& entry : open_) {
    lines.push_back(entry.line);
    if (entry.sums.power > 0) lines.back().relative_error = std::sqrt(entry.sums.error / entry.sums.power);
  }
  return lines;
}

}  // namespace tessera
