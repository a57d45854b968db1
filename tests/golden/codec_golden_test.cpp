// Codes and scales against an independent numpy implementation (tests/golden/make_codec_golden.py).
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"
#include "tests/golden/golden_arrays.h"

using namespace tessera;
using namespace tessera::golden;

namespace {

struct Golden {
  nlohmann::json json;
  size_t rows = 0;
  size_t columns = 0;
  std::vector<float> values;

  Golden() {
    std::ifstream file(std::string(TESSERA_SOURCE_DIR) + "/tests/golden/codec.json");
    REQUIRE(file.good());
    json = nlohmann::json::parse(file);
    rows = json["rows"].get<size_t>();
    columns = json["columns"].get<size_t>();
    for (const uint16_t half : read<uint16_t>(json["values_bf16"], rows * columns))
      values.push_back(bf16_to_f32(half));
  }

  std::vector<std::byte> encode(Scheme scheme) const {
    std::vector<std::byte> out(stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns}).value());
    encode_rows(scheme, rows, columns, 0, rows, values, out);
    return out;
  }
};

uint32_t nibble(const std::vector<std::byte>& stored, size_t first, tile::Nibble place) {
  const uint32_t byte = std::to_integer<uint32_t>(stored[first + place.byte]);
  return place.high ? byte >> 4 : byte & 15u;
}

float stored_scale(const std::vector<std::byte>& stored, size_t first, size_t row) {
  float scale = 0;
  std::memcpy(&scale, &stored[first + 4 * row], 4);
  return scale;
}

}  // namespace

TEST_CASE("w4a8-g128 equals numpy code for code") {
  const Golden golden;
  const nlohmann::json& fields = golden.json["w4a8-g128"];
  const size_t groups = (golden.columns + 127) / 128;
  const auto scales = read<float>(fields["scales"], golden.rows);
  const auto codes = read<uint8_t>(fields["codes"], golden.rows * golden.columns);
  const auto group_scales = read<uint8_t>(fields["group_scales"], golden.rows * groups);
  const auto group_offsets = read<uint8_t>(fields["group_offsets"], golden.rows * groups);
  const auto stored = golden.encode(Scheme::w4a8_g128);
  const RowTail tail = row_tail(Scheme::w4a8_g128, golden.rows, golden.columns);
  size_t wrong = 0;
  for (size_t row = 0; row < golden.rows; ++row) {
    const size_t panel = row / 16 * panel_bytes(Scheme::w4a8_g128, golden.columns);
    CHECK(stored_scale(stored, tail.scales, row) == scales[row]);
    for (size_t group = 0; group < groups; ++group) {
      const size_t at = row * groups + group;
      wrong += std::to_integer<uint8_t>(stored[panel + tile::group_scale_byte(row % 16, group)]) !=
               group_scales[at];
      wrong += std::to_integer<uint8_t>(stored[panel + tile::group_offset_byte(row % 16, group)]) !=
               group_offsets[at];
    }
    for (size_t column = 0; column < golden.columns; ++column)
      wrong += nibble(stored, panel, tile::nibble_in_grouped_panel(row % 16, column)) !=
               codes[row * golden.columns + column];
  }
  CHECK(wrong == 0);
}

TEST_CASE("w4a8 equals numpy code for code") {
  const Golden golden;
  const nlohmann::json& fields = golden.json["w4a8"];
  const auto scales = read<float>(fields["scales"], golden.rows);
  const auto zeros = read<uint8_t>(fields["zeros"], golden.rows);
  const auto codes = read<uint8_t>(fields["codes"], golden.rows * golden.columns);
  const auto stored = golden.encode(Scheme::w4a8);
  const RowTail tail = row_tail(Scheme::w4a8, golden.rows, golden.columns);
  size_t wrong = 0;
  for (size_t row = 0; row < golden.rows; ++row) {
    const size_t panel = row / 16 * panel_bytes(Scheme::w4a8, golden.columns);
    CHECK(stored_scale(stored, tail.scales, row) == scales[row]);
    CHECK(std::to_integer<uint8_t>(stored[tail.zeros + row]) == zeros[row]);
    for (size_t column = 0; column < golden.columns; ++column)
      wrong += nibble(stored, panel, tile::nibble_in_panel(row % 16, column)) !=
               codes[row * golden.columns + column];
  }
  CHECK(wrong == 0);
}

TEST_CASE("w8a8 equals numpy code for code") {
  const Golden golden;
  const nlohmann::json& fields = golden.json["w8a8"];
  const auto scales = read<float>(fields["scales"], golden.rows);
  const auto codes = read<uint8_t>(fields["codes"], golden.rows * golden.columns);
  const auto stored = golden.encode(Scheme::w8a8);
  const RowTail tail = row_tail(Scheme::w8a8, golden.rows, golden.columns);
  size_t wrong = 0;
  for (size_t row = 0; row < golden.rows; ++row) {
    const size_t panel = row / 16 * panel_bytes(Scheme::w8a8, golden.columns);
    CHECK(stored_scale(stored, tail.scales, row) == scales[row]);
    for (size_t column = 0; column < golden.columns; ++column)
      wrong += std::to_integer<uint8_t>(stored[panel + tile::byte_in_panel(row % 16, column)]) !=
               codes[row * golden.columns + column];
  }
  CHECK(wrong == 0);
}
