// Tables, codes, scales and reconstructions of table schemes against an independent numpy implementation
// (tests/golden/make_lut_golden.py).
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

uint16_t half_at(const std::vector<std::byte>& stored, size_t at) {
  uint16_t half = 0;
  std::memcpy(&half, &stored.at(at), 2);
  return half;
}

uint32_t code_at(const std::vector<std::byte>& stored, size_t unit, const tile::CodeBits& place,
                 unsigned bits) {
  const auto byte = [&](size_t at) { return std::to_integer<uint32_t>(stored.at(unit + at)); };
  uint32_t code = byte(place.byte) >> place.shift & ((1u << place.low) - 1);
  if (place.low < bits) code |= (byte(place.high_byte) >> place.high_shift & 1u) << place.low;
  return code;
}

}  // namespace

TEST_CASE("table schemes equal numpy table for table, code for code and value for value") {
  std::ifstream file(std::string(TESSERA_SOURCE_DIR) + "/tests/golden/lut.json");
  REQUIRE(file.good());
  const nlohmann::json golden = nlohmann::json::parse(file);
  const size_t rows = golden["rows"].get<size_t>();
  const size_t columns = golden["columns"].get<size_t>();
  std::vector<float> values;
  for (const uint16_t half : read<uint16_t>(golden["values_bf16"], rows * columns))
    values.push_back(bf16_to_f32(half));

  REQUIRE(golden["schemes"].size() == 8);
  for (const auto& item : golden["schemes"].items()) {
    const std::string name = item.key();
    CAPTURE(name);
    const nlohmann::json& fields = item.value();
    const Scheme scheme = parse_scheme(name).value();
    const TableFormat format = table_format(scheme).value();
    const size_t groups = (columns + format.group - 1) / format.group;
    std::vector<std::byte> stored(stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns}).value());
    write_default_table(scheme, rows, columns, stored);
    encode_rows(scheme, rows, columns, 0, rows, values, stored);

    if (!format.zero_points) {
      std::vector<float> table = read<float>(fields["table"], size_t{1} << format.bits);
      table.resize(16);
      CHECK(std::memcmp(table.data(), &stored[row_tail(scheme, rows, columns).table], 64) == 0);
    }
    const auto scales = read<uint16_t>(fields["scales"], rows * groups);
    const auto zeros =
        format.zero_points ? read<uint16_t>(fields["zeros"], rows * groups) : std::vector<uint16_t>();
    const auto codes = read<uint8_t>(fields["codes"], rows * columns);
    const auto meanings = read<float>(fields["meanings"], rows * columns);
    size_t wrong = 0;
    std::vector<double> decoded(columns);
    for (size_t row = 0; row < rows; ++row) {
      const size_t panel = row / 16 * panel_bytes(scheme, columns);
      for (size_t g = 0; g < groups; ++g) {
        const size_t scale_byte =
            tile::table_scale_byte(format.bits, format.group, format.zero_points, row % 16, g);
        wrong += half_at(stored, panel + scale_byte) != scales[row * groups + g];
        if (format.zero_points)
          wrong += half_at(stored, panel + tile::table_zero_byte(format.bits, format.group, row % 16, g)) !=
                   zeros[row * groups + g];
      }
      decode_row(scheme, rows, columns, stored, row, decoded);
      for (size_t column = 0; column < columns; ++column) {
        const size_t unit =
            panel + tile::table_unit_byte(format.bits, format.group, format.zero_points, column);
        const tile::CodeBits place = tile::code_in_unit(format.bits, row % 16, column % 32);
        wrong += code_at(stored, unit, place, format.bits) != codes[row * columns + column];
        wrong += static_cast<float>(decoded[column]) != meanings[row * columns + column];
      }
    }
    CHECK(wrong == 0);
  }
}
