// The layout of table weights in device memory: the index maps are as documented, and an upload stores every
// code, scale and zero point of the file where they say. Run on the emulator, and on a device where the build
// has one.
#include <doctest/doctest.h>

#include <cstring>
#include <iostream>
#include <random>
#include <set>
#include <stdexcept>
#include <vector>

#include "backends/cuda/uploaded_weight.h"
#include "tests/cuda/test_queue.h"

using namespace tessera;
using namespace tessera::cuda;

namespace {

template <class Value>
Value read(std::span<const std::byte> bytes, size_t at) {
  if (at + sizeof(Value) > bytes.size()) throw std::out_of_range("read beyond the bytes");
  Value value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// The code of (row, column) of a device panel, bit by bit.
unsigned device_code(std::span<const std::byte> panel, uint32_t bits, uint32_t row, uint32_t column) {
  const table_layout::LaneCode at = table_layout::lane_code(row, column % table_layout::kBlockColumns);
  const size_t block = size_t{column / table_layout::kBlockColumns} * table_layout::block_bytes(bits);
  unsigned code = 0;
  for (uint32_t bit = 0; bit < bits; ++bit) {
    const table_layout::BitPlace place = table_layout::bit_place(bits, at.nibble_word, at.nibble, bit);
    const auto word = read<uint32_t>(panel, block + table_layout::word_byte(bits, at.lane, place.word));
    code |= (word >> place.shift & 1u) << bit;
  }
  return code;
}

// As the device stores it: 8 bits less 128.
unsigned file_code(std::span<const std::byte> panel, const SchemeFacts& format, size_t row, size_t column) {
  const bool offsets = format.offset != GroupOffset::none;
  const size_t unit = format.kind == CodeKind::int4k
                          ? tile::nested_unit_byte(column)
                          : tile::table_unit_byte(format.bits, format.group, offsets, column);
  const tile::CodeBits at = tile::code_in_unit(format.bits, row, column % tile::kTableUnitColumns);
  unsigned code = read<uint8_t>(panel, unit + at.byte) >> at.shift & ((1u << at.low) - 1);
  if (at.low < format.bits)
    code |= (read<uint8_t>(panel, unit + at.high_byte) >> at.high_shift & 1u) << at.low;
  return format.bits == 8 ? code ^ 128 : code;
}

// How many levels of a row's group differ between a panel on the device and the file's, which is empty beyond
// the file's columns.
size_t wrong_levels(const TableView& view, std::span<const std::byte> device, const SchemeFacts& format,
                    std::span<const std::byte> file, uint32_t row, size_t group) {
  size_t wrong = 0;
  const uint32_t half = 2 * table_layout::half_of_row(row);
  const auto check = [&]<class Level>(size_t at, size_t from, Level) {
    wrong += read<Level>(device, at) != (file.empty() ? Level{0} : read<Level>(file, from)) ? 1 : 0;
  };
  const size_t scales = table_layout::scales_byte(view.bits, view.columns, group);
  if (view.nested) {
    const size_t block = group / tile::kNestedGroups;
    const size_t factors = table_layout::nested_factors_byte(view.columns, block);
    const size_t byte = scales + 4 * (row % 8) + row / 8;
    check(byte, tile::nested_group_scale_byte(row, group), uint8_t{});
    check(byte + 2, tile::nested_group_minimum_byte(row, group), uint8_t{});
    check(factors + half, tile::nested_scale_byte(row, block), uint16_t{});
    check(factors + 32 + half, tile::nested_minimum_byte(row, block), uint16_t{});
    return wrong;
  }
  check(scales + half, tile::table_scale_byte(format.bits, format.group, view.has_offsets(), row, group),
        uint16_t{});
  if (view.has_offsets())
    check(table_layout::offsets_byte(view.bits, view.columns, view.group, group) + half,
          tile::table_zero_byte(format.bits, format.group, row, group), uint16_t{});
  return wrong;
}

}  // namespace

TEST_CASE("a block's words have one place each, and the two maps are inverse") {
  for (const uint32_t bits : {2u, 3u, 4u, 8u}) {
    std::set<uint32_t> bytes;
    for (uint32_t lane = 0; lane < 32; ++lane) {
      for (uint32_t word = 0; word < 2 * bits; ++word) {
        const uint32_t byte = table_layout::word_byte(bits, lane, word);
        bytes.insert(byte);
        const table_layout::LaneWord back = table_layout::lane_word(bits, byte / 4);
        CHECK(byte % 4 == 0);
        CHECK(back.lane == lane);
        CHECK(back.word == word);
      }
    }
    CHECK(bytes.size() == table_layout::block_bytes(bits) / 4);
    CHECK(*bytes.rbegin() == table_layout::block_bytes(bits) - 4);
  }
}

TEST_CASE("every bit of a block belongs to one code, and the codes are a lane's operands") {
  for (const uint32_t bits : {2u, 3u, 4u, 8u}) {
    std::set<uint32_t> places;
    for (uint32_t row = 0; row < 16; ++row) {
      for (uint32_t column = 0; column < table_layout::kBlockColumns; ++column) {
        const table_layout::LaneCode at = table_layout::lane_code(row, column);
        CHECK(at.lane / 4 == row % 8);
        CHECK(at.lane % 4 == column % 32 / 8);  // each place has eight columns of every step
        CHECK(at.nibble == column % 8);
        CHECK(at.nibble_word == 2 * (column / 32) + row / 8);
        CHECK(table_layout::code_row(at.lane, at.nibble_word) == row);
        CHECK(table_layout::code_column(at.lane, at.nibble_word, at.nibble) == column);
        for (uint32_t bit = 0; bit < bits; ++bit) {
          const table_layout::BitPlace place = table_layout::bit_place(bits, at.nibble_word, at.nibble, bit);
          CHECK(place.word < 2 * bits);
          const uint32_t width = bits == 8 ? 8 : 4;
          CHECK(place.shift / width == at.nibble % (32 / width));  // no code leaves its place
          places.insert(8 * table_layout::word_byte(bits, at.lane, place.word) + place.shift);
        }
      }
    }
    CHECK(places.size() == 8 * table_layout::block_bytes(bits));
  }
}

TEST_CASE("uploading a table matrix puts codes, scales and offsets where the maps say") {
  const std::unique_ptr<Queue> queue = any_queue("table layout");
  if (!queue) return;
  rig::Random random = seeded("table upload");
  DeviceMemory staging;
  for (const Scheme scheme : matrix_schemes()) {
    const SchemeFacts& format = scheme_facts(scheme);
    if (!format.group_scales()) continue;
    const size_t rows = rig::pick(random, 1, 50);
    const size_t columns = rig::pick(random, 1, 400);
    const rig::PackedTensor packed = rig::random_matrix(random, "w", scheme, rows, columns);
    const StoredTensor file = packed.view();
    auto made = UploadedWeight::upload(*queue, staging, file);
    REQUIRE_MESSAGE(made.ok(), (made.ok() ? std::string() : made.error()));
    const TableView& view = made.value()->table();
    const size_t stored = padded_columns(scheme, columns);
    CAPTURE(scheme_name(scheme));
    CAPTURE(rows);
    CAPTURE(columns);
    CHECK(made.value()->is_table());
    CHECK(view.rows == rows);
    const bool int8 = format.activations == ActivationType::int8;
    CHECK(view.bits == format.bits);
    CHECK(view.group == format.group);
    CHECK(view.offset == format.offset);
    CHECK(view.table == format.table);
    CHECK(view.nested == (format.kind == CodeKind::int4k));
    CHECK(view.int8_activations == int8);
    CHECK(view.columns == tile::round_up(stored, 128));
    CHECK(view.panel_bytes == view.columns * 2 * view.bits +
                                  view.columns / view.group * (view.has_offsets() && !view.nested ? 64 : 32) +
                                  (view.nested ? view.columns / 256 * 64 : 0));
    size_t wrong = 0;
    for (size_t panel = 0; panel * 16 < rows; ++panel) {
      const auto device =
          downloaded(*queue, (view.panels + panel * view.panel_bytes).address(), view.panel_bytes);
      const size_t file_bytes = panel_bytes(scheme, columns);
      const auto in_file = file.bytes.subspan(panel * file_bytes, file_bytes);
      for (uint32_t row = 0; row < 16; ++row) {
        for (uint32_t column = 0; column < view.columns; ++column) {
          const unsigned correct = column < stored ? file_code(in_file, format, row, column) : 0;
          wrong += device_code(device, view.bits, row, column) != correct ? 1 : 0;
          if (column % view.group != 0) continue;
          wrong +=
              wrong_levels(view, device, format, column < stored ? in_file : std::span<const std::byte>(),
                           row, column / view.group);
        }
      }
    }
    CHECK(wrong == 0);
    const auto bytes = downloaded(*queue, view.entries.address(), sizeof(table_layout::Entries));
    const auto entries = read<table_layout::Entries>(bytes, 0);
    const size_t table = row_tail(scheme, rows, columns).table;
    for (uint32_t code = 0; code < 16; ++code) {
      const float value = format.table ? read<float>(file.bytes, table + 4 * code) : static_cast<float>(code);
      const unsigned shift = 8 * (code % 4);
      CHECK(entries.values[code] == value);
      if (int8) {
        const float steps = format.table ? std::nearbyint(127.0f * value) : value;
        CHECK(static_cast<float>(static_cast<int8_t>(entries.int8[code / 4] >> shift)) == steps);
      } else {
        const unsigned low = entries.bf16_low[code / 4] >> shift & 255u;
        const unsigned high = entries.bf16_high[code / 4] >> shift & 255u;
        CHECK(bf16_to_f32(static_cast<uint16_t>(low | high << 8)) == value);
      }
    }
  }
}
