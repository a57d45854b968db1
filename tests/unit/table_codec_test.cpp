// The codec of table schemes against its formulas, stated here a second time by search over all codes, on
// fresh random matrices of odd sizes, with NormalFloat and random tables.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/codec/normal_float.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

using namespace tessera;

namespace {

struct Size {
  size_t rows, columns;
};
constexpr std::array<Size, 9> kSizes{
    {{1, 1}, {17, 1}, {16, 64}, {33, 172}, {18, 288}, {15, 127}, {31, 129}, {19, 520}, {48, 31}}};

std::mt19937& random_source() {
  static std::mt19937 generator = [] {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    return std::mt19937(seed);
  }();
  return generator;
}

// Normal values with a tenth of them much larger, as weights have, and a row of zeros.
std::vector<float> random_matrix(size_t rows, size_t columns) {
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::uniform_int_distribution<int> pick(0, 9);
  std::vector<float> values(rows * columns);
  for (float& value : values) value = normal(random_source()) * (pick(random_source()) == 0 ? 8.0f : 1.0f);
  if (rows > 2) std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(columns), columns, 0.0f);
  return values;
}

std::vector<Scheme> table_schemes() {
  std::vector<Scheme> found;
  for (const Scheme scheme : matrix_schemes())
    if (table_format(scheme)) found.push_back(scheme);
  return found;
}

ValueTable random_table(const TableFormat& format) {
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  std::vector<float> values(size_t{1} << format.bits);
  for (float& value : values) value = stored_entry(format, uniform(random_source()));
  values[0] = 1.0f;
  std::sort(values.begin(), values.end());
  return make_value_table(values);
}

struct Stored {
  Scheme scheme;
  TableFormat format;
  size_t rows, columns;
  std::vector<std::byte> bytes;

  Stored(Scheme which, size_t row_count, size_t column_count)
      : scheme(which),
        format(*table_format(which)),
        rows(row_count),
        columns(column_count),
        bytes(stored_bytes(which, std::array<uint64_t, 2>{row_count, column_count}).value(),
              std::byte{0x5a}) {}

  size_t panel(size_t row) const { return row / 16 * panel_bytes(scheme, columns); }
  uint32_t byte(size_t at) const { return std::to_integer<uint32_t>(bytes.at(at)); }
  float half(size_t at) const {
    uint16_t value = 0;
    std::memcpy(&value, &bytes.at(at), 2);
    return f16_to_f32(value);
  }
  uint32_t code(size_t row, size_t column) const {
    const size_t unit =
        panel(row) + tile::table_unit_byte(format.bits, format.group, format.zero_points, column);
    const tile::CodeBits place = tile::code_in_unit(format.bits, row % 16, column % 32);
    uint32_t value = byte(unit + place.byte) >> place.shift & ((1u << place.low) - 1);
    if (place.low < format.bits)
      value |= (byte(unit + place.high_byte) >> place.high_shift & 1u) << place.low;
    return value;
  }
  float scale(size_t row, size_t group) const {
    return half(panel(row) +
                tile::table_scale_byte(format.bits, format.group, format.zero_points, row % 16, group));
  }
  float zero(size_t row, size_t group) const {
    if (!format.zero_points) return 0;
    return half(panel(row) + tile::table_zero_byte(format.bits, format.group, row % 16, group));
  }
};

}  // namespace

TEST_CASE("scales, zero points, nearest codes, meanings and padding of every table scheme") {
  for (const Scheme scheme : table_schemes()) {
    for (const Size& size : kSizes) {
      CAPTURE(std::string(scheme_name(scheme)));
      CAPTURE(size.rows);
      CAPTURE(size.columns);
      Stored stored(scheme, size.rows, size.columns);
      const TableFormat& format = stored.format;
      const std::vector<float> values = random_matrix(size.rows, size.columns);
      ValueTable table;
      if (!format.zero_points) {
        table = random_table(format);
        write_table(scheme, size.rows, size.columns, table, stored.bytes);
        CHECK(read_table(scheme, size.rows, size.columns, stored.bytes).values == table.values);
      }
      encode_rows(scheme, size.rows, size.columns, 0, size.rows, values, stored.bytes);
      size_t wrong = 0;
      std::vector<double> decoded(size.columns);
      for (size_t row = 0; row < size.rows; ++row) {
        decode_row(scheme, size.rows, size.columns, stored.bytes, row, decoded);
        for (size_t column = 0; column < size.columns; ++column) {
          const size_t group = column / format.group;
          const size_t first = group * format.group;
          const float* begin = &values[row * size.columns + first];
          const size_t count = std::min(format.group, size.columns - first);
          const auto [least, most] = std::minmax_element(begin, begin + count);
          const double low = std::min(0.0f, *least);
          const double high = std::max(0.0f, *most);
          const double scale = static_cast<double>(stored.scale(row, group));
          const double value = static_cast<double>(values[row * size.columns + column]);
          const double whole = format.zero_points ? (high - low) / 15
                                                  : std::max(-low, high) / static_cast<double>(table.largest);
          wrong += scale != static_cast<double>(f16_to_f32(f32_to_f16(static_cast<float>(whole))));
          const auto meaning = [&](uint32_t code) {
            if (!format.zero_points) return scale * static_cast<double>(table.values[code]);
            return scale * (static_cast<double>(code) - static_cast<double>(stored.zero(row, group)));
          };
          if (format.zero_points && scale > 0) {
            const double zero = std::clamp(-low / scale, 0.0, 15.0);
            wrong += std::fabs(static_cast<double>(stored.zero(row, group)) - zero) > zero * 0x1p-11 + 1e-6;
          }
          double best = INFINITY;
          for (uint32_t code = 0; code < (1u << format.bits); ++code)
            best = std::min(best, std::fabs(meaning(code) - value));
          wrong += decoded[column] != meaning(stored.code(row, column));
          wrong += std::fabs(decoded[column] - value) > best + 1e-6 * std::fabs(value) + 1e-5 * scale;
        }
      }
      for (size_t row = 0; row < tile::round_up(size.rows, 16); ++row) {
        for (size_t column = row < size.rows ? size.columns : 0;
             column < padded_columns(scheme, size.columns); ++column) {
          wrong += stored.code(row, column) != 0;
          if (row < size.rows) continue;
          wrong += stored.scale(row, column / format.group) != 0;
          wrong += stored.zero(row, column / format.group) != 0;
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("blocks of rows make the same bytes as the whole matrix, and every byte is written") {
  for (const Scheme scheme : table_schemes()) {
    const size_t rows = 37;
    const size_t columns = 301;
    CAPTURE(std::string(scheme_name(scheme)));
    const std::vector<float> values = random_matrix(rows, columns);
    Stored whole(scheme, rows, columns);
    Stored pieces(scheme, rows, columns);
    std::fill(pieces.bytes.begin(), pieces.bytes.end(), std::byte{0xa5});
    for (Stored* each : {&whole, &pieces}) write_default_table(scheme, rows, columns, each->bytes);
    encode_rows(scheme, rows, columns, 0, rows, values, whole.bytes);
    for (size_t first = 48; first > 0;) {
      first -= 16;
      const size_t count = std::min<size_t>(16, rows - first);
      encode_rows(scheme, rows, columns, first, count,
                  std::span(values).subspan(first * columns, count * columns), pieces.bytes);
    }
    CHECK(pieces.bytes == whole.bytes);
  }
}

TEST_CASE("NormalFloat tables") {
  // The published values of 4 bits (bitsandbytes), of 3 and 2 bits from the formula.
  constexpr std::array<double, 16> kFour{
      -1.0,      -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
      0.0795803, 0.1609302,  0.2461123,  0.3379152,  0.4407098,  0.5626170,  0.7229568,  1.0};
  constexpr std::array<double, 8> kThree{-1, -.478629, -.217142, 0, .160930, .337915, .562617, 1};
  constexpr std::array<double, 4> kTwo{-1, 0, .337915, 1};
  const auto compare = [](unsigned bits, std::span<const double> expected) {
    for (const bool a8 : {false, true}) {
      TableFormat format;
      format.bits = bits;
      format.int8_activations = a8;
      const ValueTable table = lut::normal_float(format);
      CHECK(table.size == expected.size());
      CHECK(table.largest == 1.0f);
      CHECK(table.values[table.zero_code] == 0.0f);
      size_t wrong = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        const double bound = a8 ? 0.5001 / 127 : std::fabs(expected[i]) / 250;
        wrong += std::fabs(static_cast<double>(table.values[i]) - expected[i]) > bound;
        wrong += table.values[i] != stored_entry(format, static_cast<double>(table.values[i]));
      }
      CHECK(wrong == 0);
    }
  };
  compare(4, kFour);
  compare(3, kThree);
  compare(2, kTwo);
}

TEST_CASE("halfway between two entries the even code is taken") {
  const std::vector<float> values{-1.0f, -0.5f, 0.25f, 1.0f};
  const ValueTable table = make_value_table(values);
  CHECK(table.nearest(-0.75f) == 0);
  CHECK(table.nearest(-0.125f) == 2);
  CHECK(table.nearest(0.625f) == 2);
  CHECK(table.nearest(std::nextafter(-0.75f, 0.0f)) == 1);
  CHECK(table.nearest(std::nextafter(-0.125f, -1.0f)) == 1);
  CHECK(table.nearest(std::nextafter(0.625f, 1.0f)) == 3);
  CHECK(table.nearest(-INFINITY) == 0);
  CHECK(table.nearest(INFINITY) == 3);
  CHECK(table.zero_code == 2);
}
