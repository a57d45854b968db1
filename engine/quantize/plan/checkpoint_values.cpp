#include "engine/quantize/plan/checkpoint_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "engine/codec/group_levels.h"
#include "engine/codec/rounding.h"
#include "engine/codec/table_levels.h"
#include "gguf-like-format/float_types.h"

namespace tessera {

namespace {

bool is_finite(float value) { return (std::bit_cast<uint32_t>(value) & 0x7f800000u) != 0x7f800000u; }

// Position of element `index` as the tensor's own indices.
std::string index_text(const std::vector<uint64_t>& shape, uint64_t index) {
  if (shape.size() != 2) return fmt::format("[{}]", index);
  return fmt::format("[{}, {}]", index / shape[1], index % shape[1]);
}

void check_finite(const std::string& folder, const PlannedWeight& weight, uint64_t first,
                  std::span<const float> values) {
  uint32_t bad = 0;
  for (const float value : values) bad |= is_finite(value) ? 0u : 1u;
  if (bad == 0) return;
  const auto at = std::find_if_not(values.begin(), values.end(), is_finite) - values.begin();
  throw FileError(fmt::format("{}: tensor \"{}\": expected finite values, found {} at {}", folder,
                              weight.source->name, values[static_cast<size_t>(at)],
                              index_text(weight.expected.shape, first + static_cast<uint64_t>(at))));
}

// Calls read(row, column, values) for each run of neighbouring stored elements of one row; other elements
// become 0.
template <class Read>
void read_padded(const TensorSource& from, uint64_t columns, uint64_t first, std::span<float> out,
                 Read read) {
  for (uint64_t at = first; at < first + out.size();) {
    const uint64_t row = at / columns;
    const uint64_t column = at % columns;
    // Up to the end of the row, or of what lies together in it.
    const uint64_t part = from.in_columns ? from.padded_head : columns;
    const uint64_t in_part = column % part;
    const uint64_t stored = from.in_columns ? from.stored_head : from.is_padding(row) ? 0 : columns;
    const uint64_t end = in_part < stored ? stored : part;
    const uint64_t count = std::min(end - in_part, first + out.size() - at);
    const std::span<float> values = out.subspan(static_cast<size_t>(at - first), static_cast<size_t>(count));
    if (in_part < stored)
      read(row, from.in_columns ? column / part * stored + in_part : column, values);
    else
      std::fill(values.begin(), values.end(), 0.0f);
    at += count;
  }
}

// The same elements of a matrix that is stored with its columns as rows.
void read_transposed(const CheckpointSource& checkpoint, const SourceTensor& source, const TensorSource& from,
                     uint64_t columns, uint64_t first, std::span<float> out) {
  std::fill(out.begin(), out.end(), 0.0f);
  const uint64_t first_row = first / columns;
  const uint64_t last_row = (first + out.size() - 1) / columns;
  const auto is_zero = [&](uint64_t row) { return !from.in_columns && from.is_padding(row); };
  uint64_t lowest = from.all_rows;
  uint64_t highest = 0;
  for (uint64_t row = first_row; row <= last_row; ++row) {
    if (is_zero(row)) continue;
    lowest = std::min(lowest, from.stored_row(row));
    highest = std::max(highest, from.stored_row(row));
  }
  if (lowest > highest) return;
  std::vector<float> values(static_cast<size_t>(highest - lowest + 1));
  uint64_t stored_column = 0;
  for (uint64_t column = 0; column < columns; ++column) {
    if (from.in_columns && from.is_padding(column)) continue;
    checkpoint.read(source, stored_column++ * from.all_rows + lowest, values);
    for (uint64_t row = first_row; row <= last_row; ++row) {
      const uint64_t at = row * columns + column;
      if (at < first || at >= first + out.size() || is_zero(row)) continue;
      out[static_cast<size_t>(at - first)] = values[static_cast<size_t>(from.stored_row(row) - lowest)];
    }
  }
}

// Reads whole runs of rows that follow one another in the checkpoint too.
void read_source(const CheckpointSource& checkpoint, const SourceTensor& source, const ExpectedTensor& tensor,
                 uint64_t first, std::span<float> out) {
  const TensorSource& from = tensor.source;
  const uint64_t columns = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
  const auto changed = [&](std::span<float> values) {
    if (from.addend == 0.0f && from.multiplier == 1.0f) return;
    for (float& value : values) value = (value + from.addend) * from.multiplier;
  };
  const auto read_run = [&](uint64_t row, uint64_t column, std::span<float> values) {
    const uint64_t stored_columns = from.in_columns ? from.stored_count(columns) : columns;
    checkpoint.read(source, from.stored_row(row) * stored_columns + column, values);
    changed(values);
  };
  if (from.transposed && !out.empty()) {
    read_transposed(checkpoint, source, from, columns, first, out);
    return changed(out);
  }
  if (from.head_rows != 0 || from.padded_head != 0) return read_padded(from, columns, first, out, read_run);
  checkpoint.read(source, from.first_row * columns + first, out);
  changed(out);
}

// read(first, values) for the same elements, of rows that are then divided by their lengths.
template <class Read>
void read_unit_rows(uint64_t columns, uint64_t first, std::span<float> out, Read read) {
  constexpr double kLeastLength = 1e-12;
  std::vector<float> row(static_cast<size_t>(columns));
  for (uint64_t at = first; at < first + out.size();) {
    const uint64_t column = at % columns;
    read(at - column, std::span(row));
    double squares = 0;
    for (const float value : row) squares += static_cast<double>(value) * static_cast<double>(value);
    const double length = std::max(std::sqrt(squares), kLeastLength);
    const uint64_t end = std::min(at - column + columns, first + out.size());
    for (; at < end; ++at)
      out[static_cast<size_t>(at - first)] =
          static_cast<float>(static_cast<double>(row[static_cast<size_t>(at % columns)]) / length);
  }
}

}  // namespace

void read_finite(const std::string& folder, const PlannedWeight& weight, uint64_t first,
                 std::span<float> out) {
  const auto read = [&](uint64_t at, std::span<float> values) {
    read_source(*weight.checkpoint, *weight.source, weight.expected, at, values);
  };
  if (weight.expected.source.unit_rows)
    read_unit_rows(weight.expected.shape[1], first, out, read);
  else
    read(first, out);
  check_finite(folder, weight, first, out);
}

void check_representable(const std::string& folder, const PlannedWeight& weight, uint64_t first,
                         std::span<const float> values) {
  check_finite(folder, weight, first, values);
  const std::optional<TableFormat> format = table_format(weight.scheme);
  const bool group_scales = scheme_facts(weight.scheme).group_scales();
  const CodeKind kind = scheme_facts(weight.scheme).kind;
  const auto overflows = [&](float value) {
    if (format) return !(std::abs(static_cast<double>(value)) < magnitude_limit(*format));
    if (group_scales) return !(std::abs(static_cast<double>(value)) < magnitude_limit(kind));
    if (weight.scheme == Scheme::f16) return !is_finite(f16_to_f32(f32_to_f16(value)));
    return weight.scheme == Scheme::bf16 && !is_finite(bf16_to_f32(f32_to_bf16(value)));
  };
  if (!overflows(rounding::largest_magnitude(values))) return;
  const auto at = std::find_if(values.begin(), values.end(), overflows) - values.begin();
  throw FileError(fmt::format("{}: tensor \"{}\": expected values within the range of {}, found {} at {}",
                              folder, weight.source->name, scheme_name(weight.scheme),
                              values[static_cast<size_t>(at)],
                              index_text(weight.expected.shape, first + static_cast<uint64_t>(at))));
}

}  // namespace tessera
