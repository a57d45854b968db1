#include "engine/quantize/lut/table_matrix.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <optional>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/codec/normal_float.h"
#include "engine/quantize/calibration/moment_factor.h"
#include "engine/quantize/lut/kmeans_table.h"
#include "engine/quantize/lut/scale_search.h"
#include "engine/quantize/lut/trained_scales.h"
#include "engine/quantize/qoq/error_feedback.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::quantize {

namespace {

constexpr float kDamping = 0.01f;
constexpr int kTrainingRounds = 6;
constexpr size_t kRowBlock = 16;

void choose_levels(const TableFormat& format, const ValueTable* table, std::span<const float> row,
                   bool scale_search, std::span<const float> importance, TableLevels& levels) {
  if (scale_search)
    search_levels(format, table, row, importance, levels);
  else
    fit_levels(format, table, row, levels);
}

void complete(DenseProducts& products, FloatMatrix& moments) {
  const size_t columns = moments.columns;
  for_row_blocks(products, moments.rows, kRowBlock, [&](size_t first, size_t count, size_t) {
    for (size_t row = first; row < first + count; ++row)
      for (size_t column = row + 1; column < columns; ++column)
        moments.values[row * columns + column] = moments.values[column * columns + row];
  });
}

std::vector<uint8_t> nearest_codes(DenseProducts& products, const FloatMatrix& weights,
                                   std::span<const TableLevels> levels) {
  std::vector<uint8_t> codes(weights.values.size());
  products.for_each(weights.rows, [&](size_t row, size_t) {
    levels[row].encode(0, weights.row(row), std::span(codes).subspan(row * weights.columns, weights.columns));
  });
  return codes;
}

}  // namespace

FloatMatrix rounded_to_table(DenseProducts& products, const TableFormat& format, const FloatMatrix& weights,
                             bool scale_search, std::span<const float> importance) {
  const ValueTable table = format.zero_points ? ValueTable{} : lut::normal_float(format);
  FloatMatrix result(weights.rows, weights.columns);
  std::vector<TableLevels> levels(products.threads());
  products.for_each(weights.rows, [&](size_t row, size_t thread) {
    choose_levels(format, format.zero_points ? nullptr : &table, weights.row(row), scale_search, importance,
                  levels[thread]);
    levels[thread].round(weights.row(row), result.row(row));
  });
  return result;
}

std::vector<float> importance_of(const InputStatistics* inputs) {
  if (inputs == nullptr) return {};
  std::vector<float> importance = inputs->squares;
  double sum = 0;
  for (float& each : importance) {
    each /= static_cast<float>(inputs->tokens);
    sum += static_cast<double>(each);
  }
  const float floor = kDamping * static_cast<float>(sum / static_cast<double>(importance.size()));
  for (float& each : importance) each += floor;
  return importance;
}

void encode_with_table(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                       const TableChoices& choices, InputStatistics* inputs, std::span<std::byte> out) {
  const size_t rows = weights.rows;
  const size_t columns = weights.columns;
  const TableFormat format = *table_format(scheme);
  assert(stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns}) == out.size());
  const std::vector<float> importance = importance_of(inputs);

  std::optional<ValueTable> table;
  if (!format.zero_points) {
    table = choices.table == TableKind::kmeans
                ? kmeans_table(products, format, weights, importance, choices.scale_search)
                : lut::normal_float(format);
    write_table(scheme, rows, columns, *table, out);
  }
  std::vector<TableLevels> levels(rows);
  products.for_each(rows, [&](size_t row, size_t) {
    choose_levels(format, table ? &*table : nullptr, weights.row(row), choices.scale_search, importance,
                  levels[row]);
  });

  std::optional<MomentFactor> factor;
  if (choices.feedback && inputs != nullptr) factor = factor_moments(products, inputs->moments);
  const auto choose_codes = [&](std::span<const TableLevels> present) {
    return factor ? codes_with_feedback(products, weights, present, *factor)
                  : nearest_codes(products, weights, present);
  };
  std::vector<uint8_t> codes;
  if (choices.train_scales && inputs != nullptr) {
    complete(products, inputs->moments);
    codes = train_scales(products, weights, inputs->moments, kTrainingRounds, choose_codes, levels);
  } else {
    codes = choose_codes(levels);
  }
  products.for_each(tile::round_up(rows, tile::kPanelRows), [&](size_t row, size_t) {
    const panel::CodedTableRow coded =
        row < rows ? panel::CodedTableRow{&levels[row],
                                          std::span<const uint8_t>(codes).subspan(row * columns, columns)}
                   : panel::CodedTableRow{};
    store_row(scheme, rows, columns, row, coded, out);
  });
}

}  // namespace tessera::quantize
