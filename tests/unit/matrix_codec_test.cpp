// The matrix codec against its formulas, stated here a second time, on fresh random matrices of odd sizes.
#include "engine/codec/matrix_codec.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

using namespace tessera;

namespace {

constexpr std::array kSchemes{Scheme::f32,  Scheme::f16,  Scheme::bf16,
                              Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128};
struct Size {
  size_t rows, columns;
};
constexpr std::array<Size, 12> kSizes{{{1, 1},
                                       {17, 1},
                                       {1, 17},
                                       {16, 64},
                                       {64, 172},
                                       {172, 64},
                                       {33, 288},
                                       {50, 576},
                                       {19, 896},
                                       {15, 127},
                                       {31, 129},
                                       {48, 384}}};

std::mt19937& random_source() {
  static std::mt19937 generator = [] {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    return std::mt19937(seed);
  }();
  return generator;
}

// Normal values with a tenth of them much larger, as weights have.
std::vector<float> random_matrix(size_t rows, size_t columns) {
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::uniform_int_distribution<int> pick(0, 9);
  std::vector<float> values(rows * columns);
  for (float& value : values) value = normal(random_source()) * (pick(random_source()) == 0 ? 8.0f : 1.0f);
  return values;
}

std::vector<std::byte> stored_matrix(Scheme scheme, size_t rows, size_t columns, std::byte fill) {
  return std::vector<std::byte>(stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns}).value(), fill);
}

std::vector<std::byte> encode(Scheme scheme, size_t rows, size_t columns, const std::vector<float>& values) {
  std::vector<std::byte> out = stored_matrix(scheme, rows, columns, std::byte{0x5a});
  encode_rows(scheme, rows, columns, 0, rows, values, out);
  return out;
}

// Reads single codes of a stored matrix through the index maps of the layout.
class Stored {
 public:
  Stored(Scheme scheme, size_t rows, size_t columns, const std::vector<std::byte>& bytes)
      : scheme_(scheme), columns_(columns), tail_(row_tail(scheme, rows, columns)), bytes_(bytes) {}

  size_t columns() const { return padded_columns(scheme_, columns_); }

  int code(size_t row, size_t column) const {
    if (scheme_ == Scheme::w8a8) return byte(panel(row) + tile::byte_in_panel(row % 16, column));
    const tile::Nibble place = scheme_ == Scheme::w4a8 ? tile::nibble_in_panel(row % 16, column)
                                                       : tile::nibble_in_grouped_panel(row % 16, column);
    const int both = byte(panel(row) + place.byte);
    return place.high ? both >> 4 : both & 15;
  }
  int group_scale(size_t row, size_t group) const {
    return byte(panel(row) + tile::group_scale_byte(row % 16, group));
  }
  int group_offset(size_t row, size_t group) const {
    return byte(panel(row) + tile::group_offset_byte(row % 16, group));
  }
  // What a code stands for before the row scale.
  int meaning(size_t row, size_t column) const {
    if (scheme_ == Scheme::w8a8) return code(row, column) - 128;
    if (scheme_ == Scheme::w4a8) return code(row, column) - zero(row);
    return code(row, column) * group_scale(row, column / 128) + group_offset(row, column / 128) - 128;
  }
  int zero(size_t row) const { return byte(tail_.zeros + row); }
  float scale(size_t row) const {
    float value = 0;
    std::memcpy(&value, &bytes_.at(tail_.scales + 4 * row), 4);
    return value;
  }

 private:
  size_t panel(size_t row) const { return row / 16 * panel_bytes(scheme_, columns_); }
  int byte(size_t at) const { return std::to_integer<int>(bytes_.at(at)); }

  Scheme scheme_;
  size_t columns_;
  RowTail tail_;
  const std::vector<std::byte>& bytes_;
};

bool is_integer(Scheme scheme) { return activation_type(scheme) == ActivationType::int8; }

int round_code(float value) { return std::clamp(static_cast<int>(std::nearbyint(value)), 0, 15); }

struct Extent {
  float low = 0, high = 0, largest = 0;
  explicit Extent(const float* begin, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      low = std::min(low, begin[i]);
      high = std::max(high, begin[i]);
      largest = std::max(largest, std::fabs(begin[i]));
    }
  }
};

// Largest |w - decoded| the formulas allow for values of this extent, in units of the row scale.
double allowed_error(Scheme scheme, const Stored& stored, size_t row, size_t column, const float* values,
                     size_t columns) {
  if (scheme != Scheme::w4a8_g128) return 0.5001;
  // Half a step of rounding, half a step by which the rounded zero point shifts the ends, and what the range
  // exceeds 15 steps by where s1 was rounded down.
  const size_t first = column / 128 * 128;
  const Extent extent(values + first, std::min<size_t>(128, columns - first));
  const double range = (static_cast<double>(extent.high) - extent.low) / stored.scale(row);
  const double step = stored.group_scale(row, column / 128);
  return step + std::max(0.0, range - 15 * step) + 0.001;
}

}  // namespace

TEST_CASE("per-row formulas") {
  for (const Size& size : kSizes) {
    const size_t rows = size.rows;
    const size_t columns = size.columns;
    CAPTURE(rows);
    CAPTURE(columns);
    const std::vector<float> values = random_matrix(rows, columns);
    const auto bytes8 = encode(Scheme::w8a8, rows, columns, values);
    const auto bytes4 = encode(Scheme::w4a8, rows, columns, values);
    const Stored stored8(Scheme::w8a8, rows, columns, bytes8);
    const Stored stored4(Scheme::w4a8, rows, columns, bytes4);
    size_t wrong8 = 0;
    size_t wrong4 = 0;
    for (size_t row = 0; row < rows; ++row) {
      const float* w = &values[row * columns];
      const Extent extent(w, columns);
      const float scale8 = extent.largest / 127.0f;
      CHECK(stored8.scale(row) == scale8);
      const float scale4 = static_cast<float>((static_cast<double>(extent.high) - extent.low) / 15.0);
      CHECK(stored4.scale(row) == scale4);
      const int zero = round_code(-extent.low / scale4);
      CHECK(stored4.zero(row) == zero);
      for (size_t column = 0; column < columns; ++column) {
        wrong8 += stored8.code(row, column) != static_cast<int>(std::nearbyint(w[column] / scale8)) + 128;
        wrong4 += stored4.code(row, column) != round_code(w[column] / scale4 + static_cast<float>(zero));
      }
    }
    CHECK(wrong8 == 0);
    CHECK(wrong4 == 0);
  }
}

TEST_CASE("progressive group formulas") {
  for (const Size& size : kSizes) {
    const size_t rows = size.rows;
    const size_t columns = size.columns;
    CAPTURE(rows);
    CAPTURE(columns);
    const std::vector<float> values = random_matrix(rows, columns);
    const auto bytes = encode(Scheme::w4a8_g128, rows, columns, values);
    const Stored stored(Scheme::w4a8_g128, rows, columns, bytes);
    size_t wrong = 0;
    for (size_t row = 0; row < rows; ++row) {
      const float* w = &values[row * columns];
      const float scale = Extent(w, columns).largest / 119.0f;
      CHECK(stored.scale(row) == scale);
      for (size_t first = 0; first < columns; first += 128) {
        std::vector<float> level1;
        for (size_t i = first; i < std::min(columns, first + 128); ++i) level1.push_back(w[i] / scale);
        const Extent extent(level1.data(), level1.size());
        const int s1 = std::max(1, static_cast<int>(std::nearbyint((extent.high - extent.low) / 15.0f)));
        const int z = round_code(-extent.low / static_cast<float>(s1));
        wrong += stored.group_scale(row, first / 128) != s1;
        wrong += stored.group_offset(row, first / 128) != 128 - z * s1;
        for (size_t i = 0; i < level1.size(); ++i)
          wrong += stored.code(row, first + i) !=
                   round_code(level1[i] / static_cast<float>(s1) + static_cast<float>(z));
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("decoding gives what the codes mean, within the bounds of the formulas") {
  for (const Scheme scheme : kSchemes) {
    for (const Size& size : kSizes) {
      const size_t rows = size.rows;
      const size_t columns = size.columns;
      CAPTURE(std::string(scheme_name(scheme)));
      CAPTURE(rows);
      CAPTURE(columns);
      const std::vector<float> values = random_matrix(rows, columns);
      const auto bytes = encode(scheme, rows, columns, values);
      const Stored stored(scheme, rows, columns, bytes);
      std::vector<double> decoded(columns);
      size_t wrong = 0;
      for (size_t row = 0; row < rows; ++row) {
        decode_row(scheme, rows, columns, bytes, row, decoded);
        for (size_t column = 0; column < columns; ++column) {
          const double value = values[row * columns + column];
          const double error = std::fabs(value - decoded[column]);
          if (is_integer(scheme)) {
            const double scale = stored.scale(row);
            wrong += decoded[column] != scale * stored.meaning(row, column);
            wrong +=
                error > scale * allowed_error(scheme, stored, row, column, &values[row * columns], columns);
          } else if (scheme == Scheme::f32) {
            wrong += error != 0;
          } else if (scheme == Scheme::f16) {
            wrong += decoded[column] != f16_to_f32(f32_to_f16(static_cast<float>(value)));
            wrong += error > std::max(std::fabs(value) * 0x1p-11, 0x1p-25);
          } else {
            wrong += decoded[column] != bf16_to_f32(f32_to_bf16(static_cast<float>(value)));
            wrong += error > std::fabs(value) * 0x1p-8;
          }
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("float panels lie where the index maps say") {
  const size_t rows = 21;
  const size_t columns = 13;
  const std::vector<float> values = random_matrix(rows, columns);
  for (const Scheme scheme : {Scheme::f32, Scheme::f16, Scheme::bf16}) {
    const auto bytes = encode(scheme, rows, columns, values);
    const size_t width = scheme == Scheme::f32 ? 4 : 2;
    for (size_t row = 0; row < rows; ++row) {
      for (size_t column = 0; column < columns; ++column) {
        const size_t place = scheme == Scheme::bf16 ? tile::bf16_in_panel(row % 16, column)
                                                    : tile::element_in_panel(row % 16, column);
        const std::byte* at = &bytes[row / 16 * panel_bytes(scheme, columns) + place * width];
        const float value = values[row * columns + column];
        if (scheme == Scheme::f32) {
          CHECK(std::memcmp(at, &value, 4) == 0);
        } else {
          const uint16_t half = scheme == Scheme::f16 ? f32_to_f16(value) : f32_to_bf16(value);
          CHECK(std::memcmp(at, &half, 2) == 0);
        }
      }
    }
  }
}

TEST_CASE("padding contributes nothing") {
  for (const Scheme scheme : kSchemes) {
    for (const Size& size : kSizes) {
      const size_t rows = size.rows;
      const size_t columns = size.columns;
      CAPTURE(std::string(scheme_name(scheme)));
      CAPTURE(rows);
      CAPTURE(columns);
      const std::vector<float> values = random_matrix(rows, columns);
      const auto bytes = encode(scheme, rows, columns, values);
      const Stored stored(scheme, rows, columns, bytes);
      size_t wrong = 0;
      if (is_integer(scheme)) {
        for (size_t row = 0; row < tile::round_up(rows, 16); ++row) {
          for (size_t column = row < rows ? columns : 0; column < stored.columns(); ++column)
            wrong += stored.meaning(row, column) != 0;
          if (row >= rows) CHECK(stored.scale(row) == 0.0f);
        }
      } else {
        // A float panel holds the real values and zeros elsewhere: as many non-zero elements as there are.
        const size_t width = scheme == Scheme::f32 ? 4 : 2;
        const size_t set = static_cast<size_t>(
            std::count_if(values.begin(), values.end(), [](float value) { return value != 0; }));
        size_t found = 0;
        for (size_t at = 0; at < bytes.size(); at += width)
          found += std::any_of(&bytes[at], &bytes[at] + width, [](std::byte b) { return b != std::byte{0}; });
        wrong += found > set;  // values too small for a half may have become zero
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("blocks of rows make the same bytes as the whole matrix, and every byte is written") {
  for (const Scheme scheme : kSchemes) {
    for (const Size& size : kSizes) {
      const size_t rows = size.rows;
      const size_t columns = size.columns;
      CAPTURE(std::string(scheme_name(scheme)));
      CAPTURE(rows);
      CAPTURE(columns);
      const std::vector<float> values = random_matrix(rows, columns);
      const auto whole = encode(scheme, rows, columns, values);
      std::vector<std::byte> pieces = stored_matrix(scheme, rows, columns, std::byte{0xa5});
      for (size_t first = tile::round_up(rows, 16); first > 0;) {  // last block first
        first -= 16;
        const size_t count = std::min<size_t>(16, rows - first);
        encode_rows(scheme, rows, columns, first, count,
                    std::span(values).subspan(first * columns, count * columns), pieces);
      }
      CHECK(pieces == whole);
    }
  }
}

TEST_CASE("rows of zeros, constants, huge and tiny values") {
  const size_t columns = 172;
  std::vector<std::vector<float>> rows(11, std::vector<float>(columns));
  std::fill(rows[1].begin(), rows[1].end(), 0.75f);
  std::fill(rows[2].begin(), rows[2].end(), -1e30f);
  for (size_t i = 0; i < columns; ++i) {
    const float sign = i % 2 == 0 ? 1.0f : -1.0f;
    const float ramp = static_cast<float>(i) / static_cast<float>(columns);
    rows[3][i] = sign * FLT_MAX;
    rows[4][i] = FLT_MAX * ramp;
    rows[5][i] = sign * FLT_MIN;
    rows[6][i] = sign * FLT_TRUE_MIN * static_cast<float>(i);
    rows[7][i] = -1e-38f * ramp;
    rows[8][i] = 100.0f + ramp;  // all on one side of zero, far from it
    rows[9][i] = -0.0f;
  }
  rows[10][171] = 1e-20f;  // alone in the second, padded group
  std::vector<float> values;
  for (const auto& row : rows) values.insert(values.end(), row.begin(), row.end());

  for (const Scheme scheme : {Scheme::w8a8, Scheme::w4a8, Scheme::w4a8_g128}) {
    CAPTURE(std::string(scheme_name(scheme)));
    const auto bytes = encode(scheme, rows.size(), columns, values);
    const Stored stored(scheme, rows.size(), columns, bytes);
    std::vector<double> decoded(columns);
    for (size_t row = 0; row < rows.size(); ++row) {
      CAPTURE(row);
      const bool zero = row == 0 || row == 9;
      CHECK(std::isfinite(stored.scale(row)));
      CHECK((zero ? stored.scale(row) == 0.0f : stored.scale(row) >= FLT_MIN));
      decode_row(scheme, rows.size(), columns, bytes, row, decoded);
      size_t wrong = 0;
      for (size_t column = 0; column < columns; ++column) {
        const double error = std::fabs(decoded[column] - static_cast<double>(rows[row][column]));
        const double bound =
            stored.scale(row) * allowed_error(scheme, stored, row, column, rows[row].data(), columns);
        wrong += !(error <= (zero ? 0.0 : bound));
        wrong += std::abs(stored.meaning(row, column)) > 127;
      }
      CHECK(wrong == 0);
    }
    // A constant is the end of its range, which a scheme by rows hits exactly up to float rounding.
    if (scheme != Scheme::w4a8_g128) {
      decode_row(scheme, rows.size(), columns, bytes, 1, decoded);
      CHECK(decoded[5] == doctest::Approx(0.75).epsilon(1e-6));
    }
  }
}

TEST_CASE("w4a8-g128 stays inside a byte for every pair of first-level extremes") {
  // Two groups a row: the first holds 119, which makes s0 = 1; the second runs from low to high.
  std::vector<std::pair<int, int>> pairs;
  for (int low = -119; low <= 119; ++low)
    for (int high = low; high <= 119; ++high) pairs.emplace_back(low, high);
  REQUIRE(pairs.size() == 239 * 240 / 2);
  const size_t columns = 256;
  const size_t rows = pairs.size();
  std::vector<float> values(rows * columns);
  for (size_t row = 0; row < rows; ++row) {
    const auto [low, high] = pairs[row];
    values[row * columns] = 119.0f;
    for (size_t i = 0; i < 128; ++i)
      values[row * columns + 128 + i] =
          static_cast<float>(low) + static_cast<float>(high - low) * static_cast<float>(i) / 127.0f;
    values[row * columns + 255] = static_cast<float>(high);
  }
  const auto bytes = encode(Scheme::w4a8_g128, rows, columns, values);
  const Stored stored(Scheme::w4a8_g128, rows, columns, bytes);
  size_t wrong = 0;
  for (size_t row = 0; row < rows; ++row) {
    wrong += stored.scale(row) != 1.0f;
    const int s1 = stored.group_scale(row, 1);
    const int a = stored.group_offset(row, 1);
    wrong += s1 < 1 || s1 > 16 || a < 1 || a > 128;
    for (size_t i = 128; i < 256; ++i) {
      const int u = stored.code(row, i) * s1 + a;
      wrong += u < 1 || u > 255;
      wrong += std::fabs(static_cast<double>(u - 128) - static_cast<double>(values[row * columns + i])) >
               allowed_error(Scheme::w4a8_g128, stored, row, i, &values[row * columns], columns);
    }
  }
  CHECK(wrong == 0);
}
