#include "engine/checkpoint/packed_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace tessera {

namespace {

// values[i] = scale * (codes[i] - offset)
void decode_zero_point(std::span<const uint8_t> codes, float scale, float offset, std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * (static_cast<float>(codes[i]) - offset);
}

void decode_table(std::span<const uint8_t> codes, float scale, const std::array<float, 16>& table,
                  std::span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * table[codes[i] & 15];
}

}  // namespace

PackedRows PackedReader::packed_rows(uint64_t, uint64_t) const {
  throw std::logic_error("rows of codes asked of a matrix without a packed format");
}

ColumnGroups column_groups(uint64_t size, std::vector<uint32_t> of) {
  ColumnGroups groups{size, {}, {}};
  bool in_order = true;
  for (size_t k = 0; k < of.size(); ++k) in_order = in_order && of[k] == k / size;
  if (in_order) return groups;
  groups.sorted.resize(of.size());
  std::iota(groups.sorted.begin(), groups.sorted.end(), 0u);
  std::stable_sort(groups.sorted.begin(), groups.sorted.end(),
                   [&](uint32_t a, uint32_t b) { return of[a] < of[b]; });
  for (size_t i = 0; i < of.size(); ++i) {
    if (of[groups.sorted[i]] == i / size) continue;
    groups.sorted.clear();
    break;
  }
  groups.of = std::move(of);
  return groups;
}

GroupedReader::GroupedReader(uint64_t columns, PackedFormat format, ColumnGroups groups)
    : columns_(columns),
      format_(std::move(format)),
      group_of_(std::move(groups.of)),
      has_format_(group_of_.empty() || !groups.sorted.empty()) {
  format_.group = static_cast<size_t>(groups.size);
  format_.order = std::move(groups.sorted);
}

void GroupedReader::read_rows(uint64_t first_row, uint64_t rows, std::span<float> out) const {
  const bool by_table = format_.meaning == PackedMeaning::table;
  const auto width = static_cast<size_t>(columns_);
  const auto count = static_cast<size_t>(groups());
  std::vector<uint8_t> codes(static_cast<size_t>(rows) * width);
  std::vector<float> scales(static_cast<size_t>(rows) * count);
  std::vector<float> offsets(by_table ? 0 : scales.size());
  read_codes(first_row, rows, codes);
  read_levels(first_row, rows, scales, offsets);
  for (size_t row = 0; row < rows; ++row) {
    const size_t levels = row * count;
    const auto row_codes = std::span<const uint8_t>(codes).subspan(row * width, width);
    const auto row_out = out.subspan(row * width, width);
    const auto decode = [&](size_t first, size_t length, size_t group) {
      const auto from = row_codes.subspan(first, length);
      const auto to = row_out.subspan(first, length);
      if (by_table)
        decode_table(from, scales[levels + group], format_.table, to);
      else
        decode_zero_point(from, scales[levels + group], offsets[levels + group], to);
    };
    if (group_of_.empty()) {
      for (size_t group = 0; group < count; ++group)
        decode(group * format_.group, std::min(format_.group, width - group * format_.group), group);
    } else {
      for (size_t k = 0; k < width; ++k) decode(k, 1, group_of_[k]);
    }
  }
}

PackedRows GroupedReader::packed_rows(uint64_t first_row, uint64_t rows) const {
  const auto width = static_cast<size_t>(columns_);
  PackedRows packed;
  packed.codes.resize(static_cast<size_t>(rows) * width);
  packed.scales.resize(static_cast<size_t>(rows * groups()));
  if (format_.meaning != PackedMeaning::table) packed.offsets.resize(packed.scales.size());
  read_codes(first_row, rows, packed.codes);
  read_levels(first_row, rows, packed.scales, packed.offsets);
  if (format_.order.empty()) return packed;
  std::vector<uint8_t> in_order(width);
  for (size_t row = 0; row < rows; ++row) {
    const auto codes = std::span(packed.codes).subspan(row * width, width);
    for (size_t i = 0; i < width; ++i) in_order[i] = codes[format_.order[i]];
    std::copy(in_order.begin(), in_order.end(), codes.begin());
  }
  return packed;
}

}  // namespace tessera
