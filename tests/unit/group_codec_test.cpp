// int8-gG, int4m and int4k: rows of given levels and codes come back exactly, by the formulas of the formats
// they stand for; plain rounding picks the nearest code of sensible levels.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tess/tensor_scales.h"
#include "gguf-like-format/tile_layout.h"

using namespace tessera;

namespace {

using Random = std::mt19937_64;

Random fresh_random() {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return Random(seed);
}

std::vector<Scheme> schemes() {
  std::vector<Scheme> found;
  for (const Scheme scheme : matrix_schemes())
    if (scheme_facts(scheme).group_scales() && !table_format(scheme)) found.push_back(scheme);
  return found;
}

struct Size {
  size_t rows;
  size_t columns;
};
constexpr Size kSizes[] = {{1, 1}, {5, 31}, {17, 172}, {33, 300}, {16, 512}};

// Any finite f16 at all: both signs, subnormal numbers and both zeros too.
float any_half(Random& random) {
  for (;;) {
    const auto bits = static_cast<uint16_t>(random());
    if ((bits & 0x7c00u) != 0x7c00u) return f16_to_f32(bits);
  }
}

struct Row {
  GroupLevels levels;
  std::vector<uint8_t> codes;
};

Row random_row(Random& random, const SchemeFacts& facts, size_t columns) {
  Row row;
  row.levels.kind = facts.kind;
  row.levels.group_columns = facts.group;
  for (size_t first = 0; first < columns; first += facts.column_pad) {
    row.levels.scales.push_back(any_half(random));
    if (facts.offset == GroupOffset::minimum) row.levels.minimums.push_back(any_half(random));
  }
  for (size_t first = 0; facts.kind == CodeKind::int4k && first < columns; first += facts.group) {
    row.levels.group_scales.push_back(static_cast<uint8_t>(random()));
    row.levels.group_minimums.push_back(static_cast<uint8_t>(random()));
  }
  for (size_t k = 0; k < columns; ++k)
    row.codes.push_back(static_cast<uint8_t>(random() % (1u << facts.bits)));
  return row;
}

// Q8_0, Q4_1 and Q4_K as GGUF defines them, in f32.
float by_formula(const Row& row, size_t k) {
  const GroupLevels& levels = row.levels;
  const size_t g = k / levels.group_columns;
  if (levels.kind == CodeKind::int8) return levels.scales[g] * static_cast<float>(row.codes[k] - 128);
  if (levels.kind == CodeKind::int4m) return levels.scales[g] * row.codes[k] + levels.minimums[g];
  const float scale = levels.scales[k / 256] * levels.group_scales[g];
  const float minimum = levels.minimums[k / 256] * levels.group_minimums[g];
  return scale * row.codes[k] - minimum;
}

std::vector<std::byte> empty_matrix(Scheme scheme, const Size& size) {
  const std::vector<uint64_t> shape = {size.rows, size.columns};
  return std::vector<std::byte>(static_cast<size_t>(stored_bytes(scheme, shape).value()), std::byte{0xa5});
}

}  // namespace

TEST_CASE("rows of given codes and levels are stored and read back exactly") {
  Random random = fresh_random();
  for (const Scheme scheme : schemes()) {
    const SchemeFacts& facts = scheme_facts(scheme);
    for (const Size& size : kSizes) {
      CAPTURE(std::string(scheme_name(scheme)));
      CAPTURE(size.columns);
      std::vector<std::byte> matrix = empty_matrix(scheme, size);
      std::vector<Row> rows;
      for (size_t r = 0; r < size.rows; ++r) rows.push_back(random_row(random, facts, size.columns));
      for (size_t r = 0; r < tile::round_up(size.rows, tile::kPanelRows); ++r) {
        const panel::CodedGroupRow coded =
            r < size.rows ? panel::CodedGroupRow{&rows[r].levels, rows[r].codes} : panel::CodedGroupRow{};
        store_row(scheme, size.rows, size.columns, r, coded, matrix);
      }
      std::vector<double> decoded(size.columns);
      std::vector<float> meaning(size.columns);
      size_t wrong = 0;
      for (size_t r = 0; r < size.rows; ++r) {
        decode_row(scheme, size.rows, size.columns, matrix, r, decoded);
        for (size_t k = 0; k < size.columns; ++k) {
          const float expected = by_formula(rows[r], k);
          wrong += static_cast<float>(decoded[k]) == expected ? 0 : 1;
          const GroupLevels::Meaning level = rows[r].levels.meaning(k / facts.group);
          wrong += level.scale * static_cast<float>(rows[r].codes[k] - level.zero) + level.minimum == expected
                       ? 0
                       : 1;
        }
      }
      CHECK(wrong == 0);
      const std::vector<uint64_t> shape = {size.rows, size.columns};
      CHECK(find_scale_fault({"w", scheme, shape, matrix}) == "");
    }
  }
}

TEST_CASE("plain rounding takes the nearest codes of levels that fit, block by block as in one go") {
  Random random = fresh_random();
  std::normal_distribution<float> normal(0.0f, 1.0f);
  for (const Scheme scheme : schemes()) {
    const SchemeFacts& facts = scheme_facts(scheme);
    for (const Size& size : kSizes) {
      CAPTURE(std::string(scheme_name(scheme)));
      CAPTURE(size.columns);
      std::vector<float> values(size.rows * size.columns);
      for (float& value : values) value = normal(random);
      // A row of zeros, one that is far from 0, one of tiny numbers.
      if (size.rows > 4) {
        std::fill_n(values.begin(), size.columns, 0.0f);
        for (size_t k = 0; k < size.columns; ++k) values[size.columns + k] += 40.0f;
        for (size_t k = 0; k < size.columns; ++k) values[2 * size.columns + k] *= 1e-12f;
      }
      std::vector<std::byte> matrix = empty_matrix(scheme, size);
      encode_rows(scheme, size.rows, size.columns, 0, size.rows, values, matrix);
      std::vector<std::byte> pieces = empty_matrix(scheme, size);
      for (size_t first = 0; first < size.rows; first += 16) {
        const size_t count = std::min<size_t>(16, size.rows - first);
        encode_rows(scheme, size.rows, size.columns, first, count,
                    std::span(values).subspan(first * size.columns, count * size.columns), pieces);
      }
      CHECK(matrix == pieces);
      std::vector<double> decoded(size.columns);
      std::vector<float> rounded(size.columns);
      size_t wrong = 0;
      double squares = 0;
      double errors = 0;
      for (size_t r = 0; r < size.rows; ++r) {
        const std::span<const float> row = std::span(values).subspan(r * size.columns, size.columns);
        decode_row(scheme, size.rows, size.columns, matrix, r, decoded);
        GroupLevels levels;
        fit_levels(facts, row, levels);
        levels.round(row, rounded);
        for (size_t k = 0; k < size.columns; ++k) {
          wrong += static_cast<float>(decoded[k]) == rounded[k] ? 0 : 1;
          const GroupLevels::Meaning level = levels.meaning(k / facts.group);
          double best = INFINITY;
          for (int32_t code = 0; code < 1 << facts.bits; ++code) {
            const double meaning =
                double{level.scale} * (code - level.zero) + static_cast<double>(level.minimum);
            best = std::min(best, std::fabs(meaning - static_cast<double>(row[k])));
          }
          // Up to the rounding of (value - minimum) / scale, in steps of up to 255.
          const double slack = 1e-4 * std::fabs(double{level.scale}) + 1e-12;
          wrong += std::fabs(decoded[k] - static_cast<double>(row[k])) <= best + slack ? 0 : 1;
          if (r == 1 || r == 2) continue;
          squares += double{row[k]} * double{row[k]};
          errors += (decoded[k] - double{row[k]}) * (decoded[k] - double{row[k]});
        }
      }
      CHECK(wrong == 0);
      // Steps of a 127th of the largest of up to 256 normal values (about 3 deviations), of which an error
      // has 1/sqrt(12): 0.7 %; or of a 15th of the range of 32 (about 4 deviations): 8 %. With room for luck.
      if (size.rows > 4 && size.columns > 100)
        CHECK(std::sqrt(errors / squares) < (facts.bits == 8 ? 0.02 : 0.11));
    }
  }
}
