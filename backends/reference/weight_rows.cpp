#include "backends/reference/weight_rows.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <iterator>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::reference {

namespace {

template <class Value>
Value load(const StoredTensor& tensor, size_t byte) {
  Value value;
  std::memcpy(&value, tensor.bytes.data() + byte, sizeof value);
  return value;
}

// Where a row lies: the first byte of its panel, and its number within the panel.
struct RowPlace {
  size_t panel;
  size_t row;
};

RowPlace place_of(const StoredTensor& matrix, size_t row) {
  return {row / tile::kPanelRows * panel_bytes(matrix.scheme, matrix.columns()), row % tile::kPanelRows};
}

int32_t nibble(const StoredTensor& matrix, size_t panel, tile::Nibble where) {
  const uint8_t byte = load<uint8_t>(matrix, panel + where.byte);
  return where.high ? byte >> 4 : byte & 15;
}

int32_t byte_code(const StoredTensor& matrix, RowPlace place, size_t column) {
  return load<uint8_t>(matrix, place.panel + tile::byte_in_panel(place.row, column));
}
int32_t nibble_code(const StoredTensor& matrix, RowPlace place, size_t column) {
  return nibble(matrix, place.panel, tile::nibble_in_panel(place.row, column));
}
int32_t progressive_code(const StoredTensor& matrix, RowPlace place, size_t column) {
  const size_t columns = group_columns(matrix.scheme);
  const size_t group = column / columns;
  const int32_t s1 = load<uint8_t>(matrix, place.panel + tile::group_scale_byte(place.row, group, columns));
  const int32_t a = load<uint8_t>(matrix, place.panel + tile::group_offset_byte(place.row, group, columns));
  return nibble(matrix, place.panel, tile::nibble_in_grouped_panel(place.row, column, columns)) * s1 + a;
}

void read_integers(const StoredTensor& matrix, size_t row, std::span<double> values) {
  std::vector<int32_t> codes(values.size());
  const IntegerRow meaning = read_integer_row(matrix, row, codes);
  for (size_t k = 0; k < values.size(); ++k) values[k] = double{meaning.scale} * (codes[k] - meaning.offset);
}

void read_groups(const StoredTensor& matrix, size_t row, std::span<double> values) {
  const GroupRow meaning = read_group_row(matrix, row, values);
  for (size_t k = 0; k < values.size(); ++k) {
    const size_t g = k / meaning.group;
    values[k] = meaning.scales[g] * (values[k] - meaning.zeros[g]) + meaning.minimums[g];
  }
}

void read_f32(const StoredTensor& matrix, size_t row, std::span<double> values) {
  const RowPlace place = place_of(matrix, row);
  for (size_t k = 0; k < values.size(); ++k)
    values[k] = load<float>(matrix, place.panel + 4 * tile::element_in_panel(place.row, k));
}
void read_f16(const StoredTensor& matrix, size_t row, std::span<double> values) {
  const RowPlace place = place_of(matrix, row);
  for (size_t k = 0; k < values.size(); ++k)
    values[k] = f16_to_f32(load<uint16_t>(matrix, place.panel + 2 * tile::element_in_panel(place.row, k)));
}
void read_bf16(const StoredTensor& matrix, size_t row, std::span<double> values) {
  const RowPlace place = place_of(matrix, row);
  for (size_t k = 0; k < values.size(); ++k)
    values[k] = bf16_to_f32(load<uint16_t>(matrix, place.panel + 2 * tile::bf16_in_panel(place.row, k)));
}

// How rows of each kind are read.
struct KindReader {
  CodeKind kind;
  void (*values)(const StoredTensor& matrix, size_t row, std::span<double> values);
  // One code of a kind with a scale per row, as read_integer_row gives it; null for others.
  int32_t (*code)(const StoredTensor& matrix, RowPlace place, size_t column) = nullptr;
};
constexpr KindReader kReaders[] = {
    {CodeKind::f32, read_f32},
    {CodeKind::f16, read_f16},
    {CodeKind::bf16, read_bf16},
    {CodeKind::row_bytes, read_integers, byte_code},
    {CodeKind::row_nibbles, read_integers, nibble_code},
    {CodeKind::progressive, read_integers, progressive_code},
    {CodeKind::lut2, read_groups},
    {CodeKind::lut3, read_groups},
    {CodeKind::lut4, read_groups},
    {CodeKind::int4, read_groups},
    {CodeKind::int8, read_groups},
    {CodeKind::int4m, read_groups},
    {CodeKind::int4k, read_groups},
};

const KindReader& reader_of(const StoredTensor& matrix) {
  const CodeKind kind = scheme_facts(matrix.scheme).kind;
  const auto* found = std::find_if(std::begin(kReaders), std::end(kReaders),
                                   [&](const KindReader& reader) { return reader.kind == kind; });
  assert(found != std::end(kReaders));
  return *found;
}

}  // namespace

IntegerRow read_integer_row(const StoredTensor& matrix, size_t row, std::span<int32_t> codes) {
  const RowPlace place = place_of(matrix, row);
  const RowTail tail = row_tail(matrix.scheme, matrix.rows(), matrix.columns());
  const auto code = reader_of(matrix).code;
  for (size_t k = 0; k < codes.size(); ++k) codes[k] = code(matrix, place, k);
  const bool zeros = scheme_facts(matrix.scheme).row_zeros;
  return {load<float>(matrix, tail.scales + 4 * row), zeros ? load<uint8_t>(matrix, tail.zeros + row) : 128};
}

int64_t integer_accumulator(std::span<const int32_t> codes, int32_t offset, std::span<const int8_t> x) {
  int64_t products = 0;
  int64_t total = 0;
  for (size_t k = 0; k < codes.size(); ++k) {
    products += int64_t{codes[k]} * x[k];
    total += x[k];
  }
  return products - offset * total;
}

GroupRow read_group_row(const StoredTensor& matrix, size_t row, std::span<double> entries) {
  const SchemeFacts& facts = scheme_facts(matrix.scheme);
  const bool nested = facts.kind == CodeKind::int4k;
  const bool offsets = facts.offset != GroupOffset::none;
  const RowPlace place = place_of(matrix, row);
  const size_t table = row_tail(matrix.scheme, matrix.rows(), matrix.columns()).table;
  for (size_t k = 0; k < entries.size(); ++k) {
    const size_t unit = place.panel + (nested ? tile::nested_unit_byte(k)
                                              : tile::table_unit_byte(facts.bits, facts.group, offsets, k));
    const tile::CodeBits bits = tile::code_in_unit(facts.bits, place.row, k % tile::kTableUnitColumns);
    unsigned code = (load<uint8_t>(matrix, unit + bits.byte) >> bits.shift) % (1u << bits.low);
    if (bits.low < facts.bits)
      code += (load<uint8_t>(matrix, unit + bits.high_byte) >> bits.high_shift) % 2u * (1u << bits.low);
    entries[k] = facts.table                    ? double{load<float>(matrix, table + 4 * code)}
                 : facts.kind == CodeKind::int8 ? static_cast<double>(code) - 128.0
                                                : static_cast<double>(code);
  }
  GroupRow result = {facts.group, {}, {}, {}};
  const auto half = [&](size_t byte) {
    return double{f16_to_f32(load<uint16_t>(matrix, place.panel + byte))};
  };
  const auto whole = [&](size_t byte) {
    return static_cast<double>(load<uint8_t>(matrix, place.panel + byte));
  };
  for (size_t g = 0; g * facts.group < entries.size(); ++g) {
    double scale = 0;
    double offset = 0;
    if (nested) {
      const size_t block = g / tile::kNestedGroups;
      scale = half(tile::nested_scale_byte(place.row, block)) *
              whole(tile::nested_group_scale_byte(place.row, g));
      offset = -half(tile::nested_minimum_byte(place.row, block)) *
               whole(tile::nested_group_minimum_byte(place.row, g));
    } else {
      scale = half(tile::table_scale_byte(facts.bits, facts.group, offsets, place.row, g));
      if (offsets) offset = half(tile::table_zero_byte(facts.bits, facts.group, place.row, g));
    }
    result.scales.push_back(scale);
    result.zeros.push_back(facts.offset == GroupOffset::zero_point ? offset : 0.0);
    result.minimums.push_back(facts.offset == GroupOffset::minimum ? offset : 0.0);
  }
  return result;
}

void read_row(const StoredTensor& matrix, size_t row, std::span<double> values) {
  reader_of(matrix).values(matrix, row, values);
}

float vector_entry(const StoredTensor& vector, size_t i) { return load<float>(vector, 4 * i); }

}  // namespace tessera::reference
