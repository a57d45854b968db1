// How integer products for many tokens are divided among blocks, on all targets. The steps of all tiles form
// one sequence, of which every block gets a run of equal length; a run may begin and end inside tiles. Where
// a tile is split between blocks, the block with its last steps adds the exact sums of the others, so the
// result does not depend on the split.
//
// Blocks process their runs backwards: first the beginning of a tile that a later block finishes, so that the
// sums are ready long before that block needs them. Blocks only wait for blocks with lower numbers.
#pragma once

#include "backends/cuda/gemm/formats/integer_formats.h"
#include "backends/cuda/layout/swizzled_tile.h"

namespace tessera::cuda {

static_assert(kStretchColumns == kSwizzledBytes);

inline constexpr uint32_t kTileRows = 128;
inline constexpr uint32_t kTilePanels = 8;
inline constexpr uint32_t kTileThreads = 256;  // threads that hold a tile's sums
inline constexpr uint32_t kTileBarrier = 1;    // named barrier of those threads
inline constexpr uint32_t kLeastSteps = 4;     // in the shortest run of a block

struct TilesJob {
  IntegerJob linear;
  uint32_t token_tiles = 0;
  uint32_t steps = 0;  // stretches of 128 columns
  uint32_t tiles = 0;
  uint32_t run_multiple = 1;  // runs are multiples of this number of steps: 1, or a whole tile
  uint32_t blocks = 0;
  Global<uint32_t> flags;   // one for each block, zero before and after
  Global<Words4> partials;  // Queue::kScratchShare bytes for each block

  TESSERA_BOTH uint64_t run_begin(uint32_t block) const {
    return uint64_t{tiles} * steps / run_multiple * block / blocks * run_multiple;
  }
};

// The steps of one tile that one block computes.
struct TileSegment {
  uint32_t tile = 0;
  uint32_t begin = 0;
  uint32_t end = 0;
};

// Iterates over the tiles of a block's run, the last one first.
class TileWalk {
 public:
  TESSERA_DEVICE TileWalk(const TilesJob& job, uint32_t block)
      : steps_(job.steps), begin_(job.run_begin(block)), at_(job.run_begin(block + 1)) {}
  TESSERA_DEVICE bool next(TileSegment& segment) {
    if (at_ == begin_) return false;
    segment.tile = static_cast<uint32_t>((at_ - 1) / steps_);
    const uint64_t first = uint64_t{segment.tile} * steps_;
    segment.begin = static_cast<uint32_t>(begin_ > first ? begin_ - first : 0);
    segment.end = static_cast<uint32_t>(at_ - first);
    at_ = first + segment.begin;
    return true;
  }

 private:
  uint32_t steps_;
  uint64_t begin_;
  uint64_t at_;
};

// Pairs of columns in a stretch; the last stretch may have only one.
TESSERA_DEVICE uint32_t pairs_of_stretch(const IntegerJob& job, uint32_t stretch) {
  const uint32_t left = job.columns / kPairColumns - stretch * kStretchPairs;
  return left < kStretchPairs ? left : kStretchPairs;
}
// Weights are read once for each tile of tokens.
TESSERA_DEVICE uint64_t weights_policy(const TilesJob& job) {
  return job.token_tiles == 1 ? evict_first_policy() : evict_normal_policy();
}
// Tokens beyond the last repeat it; their sums are not stored.
TESSERA_DEVICE uint32_t existing_token(const IntegerJob& job, uint32_t token) {
  return token < job.tokens ? token : job.tokens - 1;
}

// Stores the sums of a tile's first steps for the block that has its last ones. Called by all kTileThreads.
template <uint32_t kValues>
TESSERA_DEVICE void store_partial_sums(const TilesJob& job, const int32_t (&sums)[kValues], uint32_t thread) {
  static_assert(kTileThreads * kValues * 4 <= Queue::kScratchShare);
  const Global<Words4> to = job.partials.as<Words4>(block_x() * Queue::kScratchShare);
  TESSERA_UNROLL for (uint32_t i = 0; i < kValues / 4; ++i) {
    const int32_t* own = sums + 4 * i;
    to.store(i * kTileThreads + thread, {static_cast<uint32_t>(own[0]), static_cast<uint32_t>(own[1]),
                                         static_cast<uint32_t>(own[2]), static_cast<uint32_t>(own[3])});
  }
  named_barrier(kTileBarrier, kTileThreads);
  if (thread == 0) store_release(job.flags.address() + block_x(), 1);
}

// Adds the sums that earlier blocks have stored of the tile. Called by all kTileThreads.
template <uint32_t kValues>
TESSERA_DEVICE void add_partial_sums(const TilesJob& job, uint32_t tile, int32_t (&sums)[kValues],
                                     uint32_t thread) {
  const uint64_t first = uint64_t{tile} * job.steps;
  uint32_t block = block_x();
  do {
    --block;
    if (thread == 0) {
      while (load_acquire(job.flags.address() + block) == 0) {
      }
      job.flags.store(block, 0);  // for the next launch
    }
    named_barrier(kTileBarrier, kTileThreads);
    const Global<Words4> from = job.partials.as<Words4>(block * Queue::kScratchShare);
    TESSERA_UNROLL for (uint32_t i = 0; i < kValues / 4; ++i) {
      const Words4 words = from[i * kTileThreads + thread];
      sums[4 * i] += static_cast<int32_t>(words.x);
      sums[4 * i + 1] += static_cast<int32_t>(words.y);
      sums[4 * i + 2] += static_cast<int32_t>(words.z);
      sums[4 * i + 3] += static_cast<int32_t>(words.w);
    }
  } while (job.run_begin(block) > first);
}

// Scales, offsets and biases of a lane's rows of one panel, lane / 4 and lane / 4 + 8.
template <class Format>
class LaneRows {
 public:
  TESSERA_DEVICE LaneRows(const IntegerJob& job, uint32_t panel) : job_(job) {
    const PlacedMatrix& matrix = job.matrix_of(panel);
    has_bias_ = !matrix.bias.null();
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t row = 16 * (panel - matrix.first_panel) + lane_index() / 4 + 8 * half;
      columns_[half] = matrix.first_column + row;
      exists_[half] = row < matrix.rows;
      if (!exists_[half]) continue;
      scales_[half] = matrix.scales[row];
      if constexpr (Format::kFormat == WeightFormat::w4a8) offsets_[half] = matrix.zeros[row];
      if (has_bias_) biases_[half] = matrix.bias[row];
    }
  }

  // Stores the results of a fragment of sums of 8 tokens: the two rows by tokens 2 (lane % 4) and 2 (lane %
  // 4) + 1.
  TESSERA_DEVICE void finish(uint32_t first_token, const int32_t* sums) const {
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t token = first_token + 2 * (lane_index() % 4) + i;
      if (token >= job_.tokens) continue;
      const Global<std::byte> x = job_.x.bytes(token);
      const int32_t total = x.as<int32_t>(q8::total_offset(job_.x_columns))[0];
      const float x_scale = x.as<float>(q8::scale_offset(job_.x_columns))[0];
      for (uint32_t half = 0; half < 2; ++half) {
        if (!exists_[half]) continue;
        const int32_t sum = sums[2 * half + i] - offsets_[half] * total;
        float result = multiply_rn(multiply_rn(scales_[half], x_scale), static_cast<float>(sum));
        if (has_bias_) result = add_rn(result, biases_[half]);
        job_.y.floats(token).store(columns_[half], result);
      }
    }
  }

 private:
  const IntegerJob& job_;
  uint32_t columns_[2];
  bool exists_[2];
  bool has_bias_;
  float scales_[2] = {0, 0};
  int32_t offsets_[2] = {128, 128};
  float biases_[2] = {0, 0};
};

// Divides a product into tiles of kTileRows rows by `tokens` tokens, over at most one block for each
// multiprocessor. split: whether a tile may be divided between blocks.
inline TilesJob divide(Queue& queue, const IntegerJob& job, uint32_t tokens, bool split) {
  TilesJob tiles;
  tiles.linear = job;
  tiles.token_tiles = (job.tokens + tokens - 1) / tokens;
  tiles.steps = (job.columns + kStretchColumns - 1) / kStretchColumns;
  tiles.tiles = (job.panels + kTilePanels - 1) / kTilePanels * tiles.token_tiles;
  tiles.run_multiple = split ? 1 : tiles.steps;
  const uint64_t least = split ? kLeastSteps : tiles.steps;
  const uint64_t runs = (uint64_t{tiles.tiles} * tiles.steps + least - 1) / least;
  const auto processors = static_cast<uint32_t>(queue.facts().processors);
  tiles.blocks = runs < processors ? static_cast<uint32_t>(runs) : processors;
  tiles.flags = queue.scratch().as<uint32_t>();
  tiles.partials = queue.scratch().as<Words4>(Queue::kScratchHead);
  return tiles;
}

}  // namespace tessera::cuda
