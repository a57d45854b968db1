// Names, stored sizes and index maps of the schemes.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <iostream>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "gguf-like-format/scheme.h"
#include "gguf-like-format/tile_layout.h"

using namespace tessera;

namespace {

constexpr std::array<Scheme, 8> kAll{Scheme::f32,  Scheme::f16,       Scheme::bf16, Scheme::w8a8,
                                     Scheme::w4a8, Scheme::w4a8_g128, Scheme::u8,   Scheme::u32};
constexpr std::array<Scheme, 6> kMatrices{Scheme::f32,  Scheme::f16,  Scheme::bf16,
                                          Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128};

uint64_t bytes_of(Scheme scheme, std::vector<uint64_t> shape) {
  return stored_bytes(scheme, shape).value_or(0);
}

}  // namespace

TEST_CASE("scheme names go both ways and unknown names are nothing") {
  std::set<std::string_view> names;
  for (const Scheme scheme : kAll) {
    names.insert(scheme_name(scheme));
    CHECK(parse_scheme(scheme_name(scheme)) == scheme);
  }
  CHECK(names.size() == kAll.size());
  CHECK(scheme_name(Scheme::w4a8_g128) == "w4a8-g128");
  for (const std::string_view name : {"", "F32", "w4a8_g128", "w4a8-g12", "w4a8-g1280", "unknown"})
    CHECK_FALSE(parse_scheme(name).has_value());
}

TEST_CASE("integer schemes multiply with int8 activations") {
  for (const Scheme scheme : {Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128})
    CHECK(activation_type(scheme) == ActivationType::int8);
  for (const Scheme scheme : {Scheme::f32, Scheme::f16, Scheme::bf16, Scheme::u8, Scheme::u32})
    CHECK(activation_type(scheme) == ActivationType::f32);
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
}

TEST_CASE("schemes refuse ranks they do not have, zeros and overflow") {
  for (const Scheme scheme : {Scheme::f16, Scheme::bf16, Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128})
    CHECK(bytes_of(scheme, {64}) == 0);
  for (const Scheme scheme : {Scheme::u8, Scheme::u32}) CHECK(bytes_of(scheme, {16, 64}) == 0);
  constexpr uint64_t most = std::numeric_limits<uint64_t>::max();
  for (const Scheme scheme : kAll) {
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
    CHECK(bytes_of(scheme, {uint64_t{1} << 32, uint64_t{1} << 32}) == 0);
  }
}

TEST_CASE("stored size is panels and tails, and the index maps fill panels exactly once") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  for (int round = 0; round < 200; ++round) {
    const size_t rows = 1 + random() % 100;
    const size_t columns = 1 + random() % 700;
    for (const Scheme scheme : kMatrices) {
      CAPTURE(scheme_name(scheme));
      CAPTURE(rows);
      CAPTURE(columns);
      const size_t panel = panel_bytes(scheme, columns);
      const size_t padded_rows = tile::round_up(rows, tile::kPanelRows);
      const RowTail tail = row_tail(scheme, rows, columns);
      CHECK(tail.scales == padded_rows / 16 * panel);
      size_t expected = tail.scales;
      if (activation_type(scheme) == ActivationType::int8) expected += 4 * padded_rows;
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
