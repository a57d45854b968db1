// Names, stored sizes and index maps of the schemes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tile_layout.h"

using namespace tessera;

namespace {

std::vector<Scheme> all_schemes() {
  std::vector<Scheme> all(matrix_schemes().begin(), matrix_schemes().end());
  all.push_back(Scheme::u8);
  all.push_back(Scheme::u32);
  return all;
}

std::vector<Scheme> table_schemes() {
  std::vector<Scheme> tables;
  for (const Scheme scheme : matrix_schemes()) {
    if (table_format(scheme)) tables.push_back(scheme);
  }
  return tables;
}

std::string table_name(const TableFormat& format) {
  return (format.zero_points ? "int" : "lut") + std::to_string(format.bits) + "-g" +
         std::to_string(format.group) + (format.int8_activations ? "-a8" : "");
}
uint64_t bytes_of(Scheme scheme, std::vector<uint64_t> shape) {
  return stored_bytes(scheme, shape).value_or(0);
}

}  // namespace

TEST_CASE("scheme names go both ways and unknown names are nothing") {
  std::set<std::string_view> names;
  for (const Scheme scheme : all_schemes()) {
    names.insert(scheme_name(scheme));
    CHECK(parse_scheme(scheme_name(scheme)) == scheme);
  }
  CHECK(names.size() == all_schemes().size());
  CHECK(scheme_name(Scheme::w4a8_g128) == "w4a8-g128");
  for (const std::string_view name :
       {"",          "F32",      "w4a8_g128", "w4a8-g12",  "w4a8-g1280",   "unknown",    "lut4",
        "lut1-g64",  "lut5-g64", "lut4-g16",  "lut4-g512", "lut4-g64-",    "lut4-g64-a", "lut4-g64-a88",
        "lut4-g064", "int4",     "int3-g64",  "int2-g128", "int4-g64-a16", "Lut4-g64"})
    CHECK_FALSE(parse_scheme(name).has_value());
}

TEST_CASE("table schemes: every width, group and activation has one name, and no other scheme a format") {
  size_t count = 0;
  for (const auto& [bits, zero_points] :
       {std::pair<unsigned, bool>{2, false}, {3, false}, {4, false}, {4, true}}) {
    for (const size_t group : {size_t{32}, size_t{64}, size_t{128}, size_t{256}}) {
      for (const bool int8 : {false, true}) {
        const TableFormat format{bits, group, zero_points, int8};
        const Scheme scheme = table_scheme(format);
        CAPTURE(table_name(format));
        CHECK(scheme_name(scheme) == table_name(format));
        CHECK(parse_scheme(table_name(format)) == scheme);
        CHECK(table_format(scheme) == format);
        CHECK(group_columns(scheme) == group);
        CHECK(activation_type(scheme) == (int8 ? ActivationType::int8 : ActivationType::bf16));
        CHECK_FALSE(has_row_scales(scheme));
        ++count;
      }
    }
  }
  CHECK(table_schemes().size() == count);
  CHECK(std::set<Scheme>(matrix_schemes().begin(), matrix_schemes().end()).size() == matrix_schemes().size());
  size_t formats = 0;
  for (unsigned number = 0; number < 256; ++number)
    formats += table_format(static_cast<Scheme>(number)) ? 1 : 0;
  CHECK(formats == count);
}

TEST_CASE("schemes for foreign codes: their names, and what they hold") {
  const auto facts = [](const char* name) { return scheme_facts(parse_scheme(name).value()); };
  for (const size_t group : {size_t{32}, size_t{64}, size_t{128}, size_t{256}}) {
    for (const bool a8 : {false, true}) {
      const SchemeFacts int8 = facts(("int8-g" + std::to_string(group) + (a8 ? "-a8" : "")).c_str());
      CHECK(int8.kind == CodeKind::int8);
      CHECK(int8.bits == 8);
      CHECK(int8.group == group);
      CHECK(int8.offset == GroupOffset::none);
      CHECK(int8.activations == (a8 ? ActivationType::int8 : ActivationType::bf16));
    }
  }
  CHECK(facts("int4m-g32").kind == CodeKind::int4m);
  CHECK(facts("int4m-g32-a8").offset == GroupOffset::minimum);
  CHECK(facts("int4k-g32").kind == CodeKind::int4k);
  CHECK(facts("int4k-g32-a8").column_pad == 256);
  for (const char* name : {"int8-g16", "int8", "int4m-g64", "int4k-g256", "int8-g32-a16"})
    CHECK_FALSE(parse_scheme(name).has_value());
  size_t with_scales = 0;
  for (const Scheme scheme : all_schemes()) {
    with_scales += scheme_facts(scheme).group_scales() ? 1 : 0;
    if (table_format(scheme)) CHECK(scheme_facts(scheme).group_scales());
  }
  CHECK(with_scales == table_schemes().size() + 12);
}

TEST_CASE("integer schemes multiply with int8 activations") {
  for (const Scheme scheme : {Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128})
    CHECK(activation_type(scheme) == ActivationType::int8);
  for (const Scheme scheme : {Scheme::f32, Scheme::f16, Scheme::bf16, Scheme::u8, Scheme::u32})
    CHECK(activation_type(scheme) == ActivationType::f32);
  for (const Scheme scheme : all_schemes())
    CHECK(has_row_scales(scheme) ==
          (scheme == Scheme::w8a8 || scheme == Scheme::w4a8 || scheme == Scheme::w4a8_g128));
}

TEST_CASE("row sums of integer schemes fit 32 bits at the widest, and one column more may not") {
  // The largest magnitude of any stored code less its zero point.
  const std::map<Scheme, int64_t> codes = {{Scheme::w8a8, 128}, {Scheme::w4a8_g128, 128}, {Scheme::w4a8, 15}};
  for (const auto& entry : codes) {
    CAPTURE(scheme_name(entry.first));
    const auto most = static_cast<int64_t>(most_summed_columns(entry.first));
    CHECK(most * entry.second * 127 <= std::numeric_limits<int32_t>::max());
    CHECK((most + 1) * entry.second * 127 > std::numeric_limits<int32_t>::max());
  }
  for (const Scheme scheme : all_schemes())
    if (!has_row_scales(scheme)) CHECK(most_summed_columns(scheme) == std::numeric_limits<size_t>::max());
}

TEST_CASE("stored sizes worked out by hand") {
  CHECK(bytes_of(Scheme::f32, {7}) == 28);
  CHECK(bytes_of(Scheme::u32, {7}) == 28);
  CHECK(bytes_of(Scheme::u8, {7}) == 7);
  CHECK(bytes_of(Scheme::f32, {17, 3}) == 2 * 16 * 3 * 4);
  CHECK(bytes_of(Scheme::f16, {16, 3}) == 16 * 3 * 2);
  CHECK(bytes_of(Scheme::bf16, {16, 3}) == 16 * 4 * 2);
  CHECK(bytes_of(Scheme::w8a8, {1, 65}) == 16 * 128 + 16 * 4);
  CHECK(bytes_of(Scheme::w4a8, {16, 64}) == 16 * 64 / 2 + 16 * 4 + 16);
  CHECK(bytes_of(Scheme::w4a8_g128, {16, 128}) == 1056 + 64);
  CHECK(bytes_of(Scheme::w4a8_g128, {33, 129}) == 3 * 2 * 1056 + 48 * 4);
  CHECK(bits_per_weight(Scheme::w4a8_g128, 4096, 4096) == doctest::Approx(4.125 + 32.0 / 4096));
  CHECK(bits_per_weight(Scheme::w4a8, 4096, 4096) == doctest::Approx(4 + 40.0 / 4096));
  CHECK(bits_per_weight(Scheme::w8a8, 4096, 4096) == doctest::Approx(8 + 32.0 / 4096));
  CHECK(bytes_of(table_scheme({3, 64, false, false}), {33, 129}) == 3 * 3 * (64 * 16 * 3 / 8 + 32) + 64);
  CHECK(bytes_of(table_scheme({2, 256, false, true}), {1, 1}) == 256 * 16 / 4 + 32 + 64);
  CHECK(bytes_of(table_scheme({4, 32, true, false}), {16, 33}) == 2 * (32 * 8 + 64));
  const auto bits_of = [](const char* name) {
    return bits_per_weight(parse_scheme(name).value(), 4096, 4096);
  };
  CHECK(bits_of("int8-g32") == 8.5);
  CHECK(bits_of("int8-g256-a8") == 8.0625);
  CHECK(bits_of("int4m-g32") == 5.0);
  CHECK(bits_of("int4k-g32") == 4.625);
  CHECK(bytes_of(parse_scheme("int4k-g32").value(), {17, 257}) == 2 * 2 * 2368);
  CHECK(bytes_of(parse_scheme("int8-g64").value(), {1, 65}) == 2 * (64 * 16 + 32));
  for (const Scheme scheme : table_schemes()) {
    const TableFormat format = table_format(scheme).value();
    const double table = format.zero_points ? 0 : 64 * 8.0 / (4096.0 * 4096);
    CHECK(bits_per_weight(scheme, 4096, 4096) ==
          doctest::Approx(format.bits +
                          (format.zero_points ? 32.0 : 16.0) / static_cast<double>(format.group) + table)
              .epsilon(1e-12));
  }
}

TEST_CASE("schemes refuse ranks they do not have, zeros and overflow") {
  for (const Scheme scheme : matrix_schemes()) {
    if (scheme != Scheme::f32) CHECK(bytes_of(scheme, {64}) == 0);
  }
  for (const Scheme scheme : {Scheme::u8, Scheme::u32}) CHECK(bytes_of(scheme, {16, 64}) == 0);
  constexpr uint64_t most = std::numeric_limits<uint64_t>::max();
  for (const Scheme scheme : all_schemes()) {
    CHECK(bytes_of(scheme, {}) == 0);
    CHECK(bytes_of(scheme, {0}) == 0);
    CHECK(bytes_of(scheme, {0, 5}) == 0);
    CHECK(bytes_of(scheme, {5, 0}) == 0);
    CHECK(bytes_of(scheme, {2, 2, 2}) == 0);
    for (const uint64_t big : {most, most - 1, most - 15, most / 2, most / 2 + 1}) {
      if (scheme != Scheme::u8 || big > most / 2) CHECK(bytes_of(scheme, {big}) == 0);
      CHECK(bytes_of(scheme, {big, 1}) == 0);
      CHECK(bytes_of(scheme, {1, big}) == 0);
      CHECK(bytes_of(scheme, {big, big}) == 0);
    }
    CHECK(bytes_of(scheme, {uint64_t{1} << 33, uint64_t{1} << 33}) == 0);
  }
}

TEST_CASE("stored size is panels and tails, and the index maps fill panels exactly once") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    const size_t rows = 1 + random() % 100;
    const size_t columns = 1 + random() % 700;
    for (const Scheme scheme : matrix_schemes()) {
      CAPTURE(scheme_name(scheme));
      CAPTURE(rows);
      CAPTURE(columns);
      const size_t panel = panel_bytes(scheme, columns);
      const size_t padded_rows = tile::round_up(rows, tile::kPanelRows);
      const RowTail tail = row_tail(scheme, rows, columns);
      CHECK(tail.scales == padded_rows / 16 * panel);
      size_t expected = tail.scales;
      if (has_row_scales(scheme)) expected += 4 * padded_rows;
      if (table_format(scheme) && !table_format(scheme)->zero_points) {
        CHECK(tail.table == expected);
        expected += 16 * 4;
      }
      if (scheme == Scheme::w4a8) {
        CHECK(tail.zeros == expected);
        expected += padded_rows;
      }
      CHECK(bytes_of(scheme, {rows, columns}) == expected);
      CHECK(padded_columns(scheme, columns) >= columns);
      CHECK(padded_columns(scheme, padded_columns(scheme, columns)) == padded_columns(scheme, columns));
    }
  }
}

TEST_CASE("every position of a panel is used once") {
  constexpr size_t columns = 384;
  const auto check_elements = [](auto map, size_t width) {
    std::set<size_t> used;
    for (size_t row = 0; row < tile::kPanelRows; ++row)
      for (size_t column = 0; column < columns; ++column) used.insert(map(row, column));
    CHECK(used.size() == tile::kPanelRows * columns);
    CHECK(*used.rbegin() + 1 == width);
  };
  check_elements(tile::element_in_panel, panel_bytes(Scheme::f32, columns) / 4);
  check_elements(tile::bf16_in_panel, panel_bytes(Scheme::bf16, columns) / 2);
  check_elements(tile::byte_in_panel, panel_bytes(Scheme::w8a8, columns));
  const auto nibble_index = [](tile::Nibble nibble) { return 2 * nibble.byte + (nibble.high ? 1 : 0); };
  check_elements([&](size_t r, size_t c) { return nibble_index(tile::nibble_in_panel(r, c)); },
                 2 * panel_bytes(Scheme::w4a8, columns));

  std::set<size_t> bytes;  // of a grouped panel, by nibble; s1 and a take two each
  for (size_t row = 0; row < tile::kPanelRows; ++row) {
    for (size_t column = 0; column < columns; ++column)
      bytes.insert(nibble_index(tile::nibble_in_grouped_panel(row, column)));
    for (size_t group = 0; group < columns / tile::kGroupColumns; ++group)
      for (const size_t byte : {tile::group_scale_byte(row, group), tile::group_offset_byte(row, group)}) {
        bytes.insert(2 * byte);
        bytes.insert(2 * byte + 1);
      }
  }
  CHECK(bytes.size() == 2 * panel_bytes(Scheme::w4a8_g128, columns));
  CHECK(*bytes.rbegin() + 1 == bytes.size());
}

TEST_CASE("every bit of a panel with scales per group belongs to one code or level") {
  for (const Scheme scheme : matrix_schemes()) {
    const SchemeFacts& facts = scheme_facts(scheme);
    if (!facts.group_scales()) continue;
    const unsigned bits = facts.bits;
    const size_t group = facts.group;
    const bool nested = facts.kind == CodeKind::int4k;
    const bool offsets = facts.offset != GroupOffset::none;
    const size_t columns = 2 * facts.column_pad;
    std::vector<int> owners(8 * panel_bytes(scheme, columns), 0);
    const auto own = [&owners](size_t byte, unsigned shift, unsigned count) {
      for (unsigned i = 0; i < count; ++i) ++owners.at(8 * byte + shift + i);
    };
    bool in_lane = true;
    bool in_byte = true;
    for (size_t row = 0; row < tile::kPanelRows; ++row) {
      for (size_t column = 0; column < columns; ++column) {
        const size_t unit =
            nested ? tile::nested_unit_byte(column) : tile::table_unit_byte(bits, group, offsets, column);
        const tile::CodeBits at = tile::code_in_unit(bits, row, column % tile::kTableUnitColumns);
        own(unit + at.byte, at.shift, at.low);
        if (at.low < bits) own(unit + at.high_byte, at.high_shift, bits - at.low);
        in_byte = in_byte && at.shift + at.low <= 8 && (at.low == bits || at.low + 1 == bits);
        const size_t lane = 4 * row + column % 4;
        in_lane = in_lane && at.byte % tile::kLineBytes == lane &&
                  (at.low == bits || at.high_byte % tile::kLineBytes == lane);
      }
      const auto own_levels = [&](size_t scale, size_t offset, unsigned width) {
        own(scale, 0, 8 * width);
        if (offsets) own(offset, 0, 8 * width);
      };
      for (size_t index = 0; index < columns / group; ++index) {
        if (nested) {
          own_levels(tile::nested_group_scale_byte(row, index), tile::nested_group_minimum_byte(row, index),
                     1);
        } else {
          own_levels(tile::table_scale_byte(bits, group, offsets, row, index),
                     tile::table_zero_byte(bits, group, row, index), 2);
        }
      }
      for (size_t block = 0; nested && block < columns / tile::kNestedBlock; ++block)
        own_levels(tile::nested_scale_byte(row, block), tile::nested_minimum_byte(row, block), 2);
    }
    CAPTURE(scheme_name(scheme));
    CHECK(std::count(owners.begin(), owners.end(), 1) == static_cast<std::ptrdiff_t>(owners.size()));
    CHECK(in_lane);
    CHECK(in_byte);
  }
  std::set<size_t> positions;
  for (size_t column = 0; column < 64; ++column) {
    positions.insert(tile::bf16_position(column));
    CHECK(tile::bf16_position(column) / 4 == column / 4);
    CHECK(tile::bf16_position(tile::bf16_position(column)) == column);
  }
  CHECK(positions.size() == 64);
  CHECK(tile::bf16_position(1) == 2);
}
