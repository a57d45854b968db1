#include "engine/quantize/qoq/rounded_matrix.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "engine/codec/group_levels.h"
#include "engine/codec/matrix_codec.h"
#include "engine/codec/row_levels.h"
#include "engine/quantize/calibration/moment_factor.h"
#include "engine/quantize/qoq/error_feedback.h"
#include "gguf-like-format/float_types.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::quantize {

namespace {

float clip_of(std::span<const float> clips, size_t row) { return clips.empty() ? 1.0f : clips[row]; }

// Groups with levels of their own are rounded by these.
void round_groups(Scheme scheme, std::span<const float> values, std::span<float> out) {
  GroupLevels levels;
  fit_levels(scheme_facts(scheme), values, levels);
  levels.round(values, out);
}

// A float scheme stores values, not levels: clipping has no meaning for it.
void round_floats(Scheme scheme, std::span<const float> values, std::span<float> out) {
  const auto stored = [&](float value) {
    if (scheme == Scheme::f16) return f16_to_f32(f32_to_f16(value));
    return scheme == Scheme::bf16 ? bf16_to_f32(f32_to_bf16(value)) : value;
  };
  std::transform(values.begin(), values.end(), out.begin(), stored);
}

}  // namespace

FloatMatrix rounded_to_rows(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                            std::span<const float> clips) {
  assert((clips.empty() || clips.size() == weights.rows) && !table_format(scheme));
  FloatMatrix result(weights.rows, weights.columns);
  std::vector<RowLevels> levels(products.threads());
  products.for_each(weights.rows, [&](size_t row, size_t thread) {
    if (scheme_facts(scheme).group_scales()) return round_groups(scheme, weights.row(row), result.row(row));
    if (!has_row_scales(scheme)) return round_floats(scheme, weights.row(row), result.row(row));
    fit_levels(scheme, weights.row(row), clip_of(clips, row), levels[thread]);
    levels[thread].round(weights.row(row), result.row(row));
  });
  return result;
}

void encode_rows_of(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                    std::span<const float> clips, const InputStatistics* feedback, std::span<std::byte> out) {
  const size_t rows = weights.rows;
  const size_t columns = weights.columns;
  assert(clips.empty() || clips.size() == rows);
  assert(stored_bytes(scheme, std::array<uint64_t, 2>{rows, columns}) == out.size() && !table_format(scheme));
  if (!has_row_scales(scheme)) {
    products.for_each((rows + tile::kPanelRows - 1) / tile::kPanelRows, [&](size_t panel, size_t) {
      const size_t first = panel * tile::kPanelRows;
      const size_t count = std::min(tile::kPanelRows, rows - first);
      encode_rows(scheme, rows, columns, first, count,
                  std::span(weights.values).subspan(first * columns, count * columns), out);
    });
    return;
  }
  std::vector<RowLevels> levels(rows);
  products.for_each(rows, [&](size_t row, size_t) {
    fit_levels(scheme, weights.row(row), clip_of(clips, row), levels[row]);
  });
  std::vector<uint8_t> codes;
  if (feedback != nullptr) {
    assert(feedback->moments.rows == columns);
    codes = codes_with_feedback(products, weights, levels, factor_moments(products, feedback->moments));
  } else {
    codes.resize(rows * columns);
    products.for_each(rows, [&](size_t row, size_t) {
      levels[row].encode(0, weights.row(row), std::span(codes).subspan(row * columns, columns));
    });
  }
  products.for_each(tile::round_up(rows, tile::kPanelRows), [&](size_t row, size_t) {
    const panel::CodedRow coded =
        row < rows
            ? panel::CodedRow{&levels[row], std::span<const uint8_t>(codes).subspan(row * columns, columns)}
            : panel::CodedRow{};
    store_row(scheme, rows, columns, row, coded, out);
  });
}

}  // namespace tessera::quantize
