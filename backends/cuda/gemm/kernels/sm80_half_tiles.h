// Products with 16-bit weights for more than 16 tokens: tiles of 128 or 64 rows by 128 or 64 tokens.
// Asynchronous copies bring 32 columns at a time, four to eight stages deep; a warp computes 64 rows by a
// quarter of the tokens.
#pragma once

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/formats/half_formats.h"

namespace tessera::cuda::halves {

template <class Format_, uint32_t kRows_, uint32_t kTokens_>
struct Tile {
  using Format = Format_;
  static constexpr uint32_t kRows = kRows_;
  static constexpr uint32_t kTokens = kTokens_;
  static constexpr uint32_t kPanels = 4;  // of a warp
  static constexpr uint32_t kEights = kTokens / 32;
  static constexpr uint32_t kThreads = kRows / 64 * 128;
  static constexpr uint32_t kInputsAt = kRows * kWeightRowBytes;
  static constexpr uint32_t kStageBytes = kInputsAt + kTokens * kInputRowBytes;
  static constexpr uint32_t kStages = (99u << 10) / kStageBytes;  // as many as fit on sm_86
  static constexpr uint32_t kSharedBytes = kStages * kStageBytes;
};

struct TilesJob {
  LinearJob linear;
  uint32_t token_tiles = 0;
};

// A thread's share of the copies of a stage.
template <class Shape>
class StageCopies {
 public:
  TESSERA_DEVICE StageCopies(const LinearJob& job, const Matrix& matrix, uint32_t first_row,
                             uint32_t first_token, uint64_t policy)
      : place_(weight_byte(thread_index() / kWeightPieces, thread_index() % kWeightPieces)),
        policy_(policy),
        inputs_(job, matrix.columns(), first_token + thread_index() / kInputPieces,
                4 * (thread_index() % kInputPieces),
                Shape::kInputsAt + input_byte(thread_index() / kInputPieces, thread_index() % kInputPieces)) {
    const uint32_t last = 16 * matrix.panels() - 1;
    TESSERA_UNROLL for (uint32_t i = 0; i < kOwnRows; ++i) {
      // Rows beyond the last repeat it; their sums are not used.
      const uint32_t row = first_row + thread_index() / kWeightPieces + i * kRowsAtOnce;
      rows_[i] = matrix.row(row < last ? row : last) + 16 * (thread_index() % kWeightPieces);
    }
  }

  TESSERA_DEVICE void start(uint32_t block, Shared<std::byte> stage) const {
    TESSERA_UNROLL for (uint32_t i = 0; i < kOwnRows; ++i) {
      cp_async_16_hinted(stage.template as<std::byte>(place_ + i * kRowsAtOnce * kWeightRowBytes).address(),
                         (rows_[i] + size_t{block} * kWeightRowBytes).address(), policy_);
    }
    inputs_.start(block * kBlockColumns, stage);
  }

 private:
  static constexpr uint32_t kRowsAtOnce = Shape::kThreads / kWeightPieces;
  static constexpr uint32_t kOwnRows = Shape::kRows / kRowsAtOnce;
  static constexpr uint32_t kTokensAtOnce = Shape::kThreads / kInputPieces;
  static_assert(kRowsAtOnce % 8 == 0, "so that all of a thread's rows have the same swizzle");

  uint32_t place_;
  uint64_t policy_;
  Global<const std::byte> rows_[kOwnRows];
  InputCopies<kTokensAtOnce, Shape::kTokens / kTokensAtOnce> inputs_;
};

template <class Shape>
TESSERA_KERNEL TESSERA_BLOCK_OF(Shape::kThreads) void linear_half_tiles(TilesJob tiles) {
  using Sums = float[Shape::kPanels][Shape::kEights][4];
  const LinearJob& job = tiles.linear;
  const Matrix matrix(job);
  const uint32_t first_row = block_x() / tiles.token_tiles * Shape::kRows;
  const uint32_t first_token = block_x() % tiles.token_tiles * Shape::kTokens;
  const uint32_t blocks = (matrix.columns() + kBlockColumns - 1) / kBlockColumns;
  // Weights are read once for each tile of tokens.
  const uint64_t policy = tiles.token_tiles == 1 ? evict_first_policy() : evict_normal_policy();
  const StageCopies<Shape> copies(job, matrix, first_row, first_token, policy);
  const Shared<std::byte> shared(shared_memory());
  const auto stage_of = [&](uint32_t block) {
    return shared.as<std::byte>(block % Shape::kStages * Shape::kStageBytes);
  };
  const auto fill = [&](uint32_t block) {
    if (block < blocks) copies.start(block, stage_of(block));
    cp_async_commit();
  };
  for (uint32_t i = 0; i + 1 < Shape::kStages; ++i) fill(i);
  const uint32_t own_rows = warp_index() / 4 * 16 * Shape::kPanels;
  const uint32_t own_tokens = warp_index() % 4 * 8 * Shape::kEights;
  Sums totals = {};
  Sums sums = {};
  for (uint32_t block = 0; block < blocks; ++block) {
    cp_async_wait<Shape::kStages - 2>();
    // All copies of this stage have landed, and all warps have finished with the previous one.
    block_barrier();
    fill(block + Shape::kStages - 1);
    const Shared<std::byte> stage = stage_of(block);
    add_block<typename Shape::Format>(
        sums, stage.template as<std::byte>(own_rows * kWeightRowBytes),
        stage.template as<std::byte>(Shape::kInputsAt + own_tokens * kInputRowBytes));
    if ((block + 1) % (kChunkColumns / kBlockColumns) != 0 && block + 1 < blocks) continue;
    TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kPanels * Shape::kEights * 4; ++i) {
      float& sum = sums[i / 4 / Shape::kEights][i / 4 % Shape::kEights][i % 4];
      float& total = totals[i / 4 / Shape::kEights][i / 4 % Shape::kEights][i % 4];
      total = add_rn(total, sum);
      sum = 0;
    }
  }
  TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kPanels * Shape::kEights * 4; ++i) {
    const uint32_t panel = i / 4 / Shape::kEights;
    const uint32_t eight = i / 4 % Shape::kEights;
    matrix.store(job, first_token + own_tokens + 8 * eight + 2 * (lane_index() % 4) + i % 2,
                 first_row + own_rows + 16 * panel + lane_index() / 4 + i % 4 / 2 * 8,
                 totals[panel][eight][i % 4]);
  }
}

template <class Shape>
uint32_t tiles_of(const LinearJob& job) {
  return (job.weights.rows + Shape::kRows - 1) / Shape::kRows *
         ((job.tokens + Shape::kTokens - 1) / Shape::kTokens);
}

template <class Shape>
void launch_tiles(Queue& queue, const LinearJob& job) {
  const TilesJob tiles{job, (job.tokens + Shape::kTokens - 1) / Shape::kTokens};
  // Not early: a multiprocessor has room for two blocks, and the first ones to become free would get two
  // each.
  launch(queue, {tiles_of<Shape>(job), 1, 1, Shape::kThreads, Shape::kSharedBytes}, &linear_half_tiles<Shape>,
         tiles);
}

}  // namespace tessera::cuda::halves
