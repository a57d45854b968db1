#include "engine/quantize/qoq/error_feedback.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <optional>

#include "engine/quantize/calibration/moment_sums.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::quantize {

namespace {

constexpr size_t kTile = 16;  // columns rounded before their errors are passed on to later ones
constexpr size_t kRows = 8;   // rows that share a tile of shares while it is in cache

// The columns [first, first + count) in the order of rounding, for all rows.
struct Block {
  size_t first = 0;
  size_t count = 0;
  size_t padded = 0;  // count in whole tiles
  size_t stride = 0;  // no multiple of 4 KiB, at which all rows of a tile crowd into one set of the cache
  std::vector<float>
      shares;  // [padded] rows of stride, [i][j]: the share of column i's error that is added to column j
};

Block make_block(DenseProducts& products, const FloatMatrix& shares, size_t first) {
  Block block;
  block.first = first;
  block.count = std::min(kFactorBlock, shares.columns - first);
  block.padded = tile::round_up(block.count, kTile);
  block.stride = block.padded + kTile;
  block.shares.resize(block.padded * block.stride);
  transpose(products, &shares.values[first * shares.columns + first], shares.columns, block.count,
            block.count, block.shares.data(), block.stride);
  return block;
}

// The code of a row without any levels: all its weights are zero, and so is what the code means.
std::optional<uint8_t> only_code(const RowLevels& levels) {
  if (levels.scale != 0.0f) return std::nullopt;
  return static_cast<uint8_t>(levels.code_offset);
}
std::optional<uint8_t> only_code(const TableLevels&) { return std::nullopt; }
std::optional<uint8_t> only_code(const GroupLevels&) { return std::nullopt; }

// Up to kRows rows of one block. Working values are padded like the block.
template <typename Levels>
class RowTask {
 public:
  RowTask(const FloatMatrix& weights, std::span<const Levels> levels, const MomentFactor& factor,
          const Block& block, size_t first_row)
      : weights_(weights),
        levels_(levels),
        order_(factor.order),
        block_(block),
        first_row_(first_row),
        rows_(std::min(kRows, weights.rows - first_row)),
        values_(kRows * block.padded) {}

  // adjusted: [rows, columns] of the whole matrix in the order of rounding; codes: [rows, columns]; errors:
  // [rows, count] of this block, or empty.
  void run(const FloatMatrix& adjusted, std::span<uint8_t> codes, std::span<float> errors) {
    for (size_t r = 0; r < rows_; ++r) {
      const std::span<const float> from = adjusted.row(first_row_ + r).subspan(block_.first, block_.count);
      std::copy(from.begin(), from.end(), &values_[r * block_.padded]);
    }
    for (size_t start = 0; start < block_.count; start += kTile) {
      for (size_t r = 0; r < rows_; ++r) {
        round_tile(r, start, codes);
        if (errors.empty()) continue;
        const size_t used = std::min(kTile, block_.count - start);
        std::copy_n(errors_[r].begin(), used, &errors[(first_row_ + r) * block_.count + start]);
      }
      for (size_t later = start + kTile; later < block_.padded; later += kTile) {
        for (size_t r = 0; r < rows_; ++r) pass_on(r, start, later);
      }
    }
  }

 private:
  using Tile = std::array<float, kTile>;

  // Rounds the columns of one tile of row r, each with what those before it in the tile left.
  void round_tile(size_t r, size_t start, std::span<uint8_t> codes) {
    const size_t row = first_row_ + r;
    const Levels& levels = levels_[row];
    const std::optional<uint8_t> only = only_code(levels);
    float* values = &values_[r * block_.padded + start];
    errors_[r] = {};
    for (size_t i = 0; i < std::min(kTile, block_.count - start); ++i) {
      const size_t column = order_[block_.first + start + i];
      const float weight = weights_.row(row)[column];
      uint8_t& stored = codes[row * weights_.columns + column];
      if (only) {  // no error
        stored = *only;
        continue;
      }
      const typename Levels::Group group = levels.group_of(column);
      const int32_t code = levels.code(values[i], group);
      stored = static_cast<uint8_t>(code);
      const float error = weight - levels.meaning(code, group);
      errors_[r][i] = error;
      // Shares of columns up to this one are 0.
      const float* shares = &block_.shares[(start + i) * block_.stride + start];
      for (size_t j = 0; j < kTile; ++j) values[j] += error * shares[j];
    }
  }

  // Adds what the tile at `start` left to the tile at `later`, column after column.
  void pass_on(size_t r, size_t start, size_t later) {
    float* values = &values_[r * block_.padded + later];
    const float* shares = &block_.shares[start * block_.stride + later];
    Tile sums;
    std::copy_n(values, kTile, sums.begin());
    for (size_t i = 0; i < kTile; ++i) {
      const float error = errors_[r][i];
      for (size_t j = 0; j < kTile; ++j) sums[j] += error * shares[i * block_.stride + j];
    }
    std::copy_n(sums.begin(), kTile, values);
  }

  const FloatMatrix& weights_;
  std::span<const Levels> levels_;
  std::span<const uint32_t> order_;
  const Block& block_;
  size_t first_row_;
  size_t rows_;
  std::vector<float> values_;            // [kRows, padded]
  std::array<Tile, kRows> errors_ = {};  // of the tile just rounded
};

template <typename Levels>
std::vector<uint8_t> choose_codes(DenseProducts& products, const FloatMatrix& weights,
                                  std::span<const Levels> levels, const MomentFactor& factor) {
  const size_t columns = weights.columns;
  assert(levels.size() == weights.rows && factor.order.size() == columns);
  std::vector<uint8_t> codes(weights.rows * columns);
  FloatMatrix adjusted(weights.rows, columns);
  products.for_each(weights.rows, [&](size_t row, size_t) {
    const std::span<const float> from = weights.row(row);
    const std::span<float> to = adjusted.row(row);
    for (size_t i = 0; i < columns; ++i) to[i] = from[factor.order[i]];
  });
  std::vector<float> errors;
  for (size_t first = 0; first < columns; first += kFactorBlock) {
    const Block block = make_block(products, factor.shares, first);
    const size_t end = first + block.count;
    errors.resize(end < columns ? weights.rows * block.count : 0);
    products.for_each((weights.rows + kRows - 1) / kRows, [&](size_t task, size_t) {
      RowTask<Levels>(weights, levels, factor, block, task * kRows).run(adjusted, codes, errors);
    });
    if (end == columns) break;
    DenseProduct job;
    job.a = errors.data();
    job.a_stride = block.count;
    job.m = weights.rows;
    job.b = &factor.shares.values[end * columns + first];
    job.b_stride = columns;
    job.n = columns - end;
    job.k = block.count;
    job.out = &adjusted.values[end];
    job.out_stride = columns;
    job.accumulate = true;
    products.multiply(job);
  }
  return codes;
}

}  // namespace

std::vector<uint8_t> codes_with_feedback(DenseProducts& products, const FloatMatrix& weights,
                                         std::span<const RowLevels> levels, const MomentFactor& factor) {
  return choose_codes(products, weights, levels, factor);
}

std::vector<uint8_t> codes_with_feedback(DenseProducts& products, const FloatMatrix& weights,
                                         std::span<const TableLevels> levels, const MomentFactor& factor) {
  return choose_codes(products, weights, levels, factor);
}

std::vector<uint8_t> codes_with_feedback(DenseProducts& products, const FloatMatrix& weights,
                                         std::span<const GroupLevels> levels, const MomentFactor& factor) {
  return choose_codes(products, weights, levels, factor);
}

}  // namespace tessera::quantize
