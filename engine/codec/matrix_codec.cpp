#include "engine/codec/matrix_codec.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "engine/codec/normal_float.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera {

namespace {

// Whether bytes is the size of a stored matrix of this scheme and shape.
[[maybe_unused]] bool fits(Scheme scheme, size_t rows, size_t columns, size_t bytes) {
  return stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns}) == bytes;
}

// The panel that holds `row`, as one of the stored matrix's bytes.
template <class Byte>
panel::PanelBytes<Byte> panel_of(Scheme scheme, size_t rows, size_t columns, size_t row,
                                 std::span<Byte> stored) {
  const SchemeFacts& facts = scheme_facts(scheme);
  const size_t index = row / tile::kPanelRows;
  const size_t first = index * tile::kPanelRows;
  const size_t bytes = panel_bytes(scheme, columns);
  const RowTail tail = row_tail(scheme, rows, columns);
  const auto array = [&](bool stored_here, size_t at, size_t size) {
    return stored_here ? stored.subspan(at, size) : std::span<Byte>();
  };
  return {.scheme = facts,
          .columns = columns,
          .codes = stored.subspan(index * bytes, bytes),
          .row_scales = array(facts.row_scales, tail.scales + 4 * first, 4 * tile::kPanelRows),
          .row_zeros = array(facts.row_zeros, tail.zeros + first, tile::kPanelRows),
          .table = array(facts.table, tail.table, tile::kTableBytes)};
}

}  // namespace

void write_table(Scheme scheme, size_t rows, size_t columns, std::span<const float> values,
                 std::span<std::byte> out) {
  assert(fits(scheme, rows, columns, out.size()));
  assert(scheme_facts(scheme).table && values.size() == size_t{1} << scheme_facts(scheme).bits);
  std::array<float, tile::kTableBytes / sizeof(float)> table{};
  std::copy(values.begin(), values.end(), table.begin());
  std::memcpy(out.subspan(row_tail(scheme, rows, columns).table, tile::kTableBytes).data(), table.data(),
              tile::kTableBytes);
}

void write_table(Scheme scheme, size_t rows, size_t columns, const ValueTable& table,
                 std::span<std::byte> out) {
  write_table(scheme, rows, columns, std::span(table.values).first(table.size), out);
}

void write_default_table(Scheme scheme, size_t rows, size_t columns, std::span<std::byte> out) {
  if (scheme_facts(scheme).table)
    write_table(scheme, rows, columns, lut::normal_float(table_format(scheme).value()), out);
}

ValueTable read_table(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored) {
  std::array<float, 16> values{};
  std::memcpy(values.data(), stored.subspan(row_tail(scheme, rows, columns).table, sizeof values).data(),
              sizeof values);
  return make_value_table(std::span(values).first(size_t{1} << scheme_facts(scheme).bits));
}

namespace {

// Writes a row by the member of the scheme's codec that takes such levels.
template <class Coded, class Store>
void store_by(Store store, Scheme scheme, size_t rows, size_t columns, size_t row, const Coded& coded,
              std::span<std::byte> out) {
  assert(fits(scheme, rows, columns, out.size()));
  assert(coded.codes.empty() || (row < rows && coded.codes.size() == columns));
  const panel::Panel target = panel_of(scheme, rows, columns, row, out);
  (panel::codec_of(target.scheme.kind).*store)(coded, row % tile::kPanelRows, target);
}

}  // namespace

void store_row(Scheme scheme, size_t rows, size_t columns, size_t row, const panel::CodedRow& coded,
               std::span<std::byte> out) {
  store_by(&panel::Codec::store, scheme, rows, columns, row, coded, out);
}

void store_row(Scheme scheme, size_t rows, size_t columns, size_t row, const panel::CodedTableRow& coded,
               std::span<std::byte> out) {
  store_by(&panel::Codec::store_table, scheme, rows, columns, row, coded, out);
}

void store_row(Scheme scheme, size_t rows, size_t columns, size_t row, const panel::CodedGroupRow& coded,
               std::span<std::byte> out) {
  store_by(&panel::Codec::store_groups, scheme, rows, columns, row, coded, out);
}

void encode_rows(Scheme scheme, size_t rows, size_t columns, size_t first_row, size_t row_count,
                 std::span<const float> values, std::span<std::byte> out) {
  assert(fits(scheme, rows, columns, out.size()));
  assert(first_row % tile::kPanelRows == 0 && first_row + row_count <= rows);
  assert(row_count % tile::kPanelRows == 0 || first_row + row_count == rows);
  assert(values.size() == row_count * columns);
  for (size_t done = 0; done < row_count; done += tile::kPanelRows) {
    const size_t count = std::min(tile::kPanelRows, row_count - done);
    const panel::Rows part{count, columns, values.subspan(done * columns, count * columns)};
    const panel::Panel target = panel_of(scheme, rows, columns, first_row + done, out);
    panel::codec_of(target.scheme.kind).encode(part, target);
  }
}

void decode_row(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored, size_t row,
                std::span<double> out) {
  assert(fits(scheme, rows, columns, stored.size()));
  assert(row < rows && out.size() == columns);
  const panel::StoredPanel source = panel_of(scheme, rows, columns, row, stored);
  panel::codec_of(source.scheme.kind).decode(source, row % tile::kPanelRows, out);
}

}  // namespace tessera
