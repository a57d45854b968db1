// Integer products for many tokens with mma.m16n8k32, for sm_80 and later: tiles of 128 rows by 64 or 128
// tokens. Asynchronous copies bring weights and activations of 128 columns at a time, three stages deep.
// Eight warps share a tile, each two panels by half the tokens, and expand their weights in registers.
#pragma once

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/kernels/int8_split_tiles.h"

namespace tessera::cuda {

template <class Format_, uint32_t kTokens_>
struct Sm80Tile {
  using Format = Format_;
  static constexpr uint32_t kTokens = kTokens_;
  static constexpr uint32_t kStages = 3;
  static constexpr uint32_t kWarpPanels = 2;
  static constexpr uint32_t kEights = kTokens / 16;  // of a warp
  static constexpr uint32_t kValues = kWarpPanels * kEights * 4;
  static constexpr uint32_t kWeightsAt = kTokens * kStretchColumns;
  static constexpr uint32_t kStageBytes = kWeightsAt + kTilePanels * Format::kStretchBytes;
  static constexpr uint32_t kSharedBytes = kStages * kStageBytes;
  static_assert(kSharedBytes <= 99u << 10, "the maximum on sm_86");
};

template <class Shape>
TESSERA_DEVICE void fill_stage(const IntegerJob& job, uint32_t first_panel, uint32_t first_token,
                               uint32_t stretch, Shared<std::byte> stage, uint64_t policy) {
  using Format = typename Shape::Format;
  const uint32_t panel = first_panel + warp_index();  // each warp copies one panel
  if (panel < job.panels) {
    const Global<const std::byte> from = job.codes_of(panel) + size_t{stretch} * Format::kStretchBytes;
    const Shared<std::byte> to =
        stage.as<std::byte>(Shape::kWeightsAt + warp_index() * Format::kStretchBytes);
    const uint32_t bytes = Format::bytes_of(pairs_of_stretch(job, stretch));
    for (uint32_t byte = 16 * lane_index(); byte < bytes; byte += 512)
      cp_async_16_hinted(to.as<std::byte>(byte).address(), (from + byte).address(), policy);
  }
  constexpr uint32_t kChunks = kStretchColumns / 16;
  for (uint32_t i = thread_index(); i < Shape::kTokens * kChunks; i += kTileThreads) {
    const Global<std::byte> row = job.x.bytes(existing_token(job, first_token + i / kChunks));
    cp_async_16(stage.as<std::byte>(swizzled_chunk(i / kChunks, i % kChunks)).address(),
                (row + (stretch * kStretchColumns + i % kChunks * 16)).address());
  }
}

// Adds the products of one stage to the warp's sums.
template <class Shape>
TESSERA_DEVICE void add_stage(int32_t (&sums)[Shape::kValues], Shared<std::byte> stage, uint32_t pairs,
                              uint32_t own_panels) {
  using Format = typename Shape::Format;
  const uint32_t first_panel = warp_index() / 2 * Shape::kWarpPanels;
  const uint32_t first_token = warp_index() % 2 * (Shape::kTokens / 2);
  const auto panel_at = [&](uint32_t p) {
    return stage.as<std::byte>(Shape::kWeightsAt + (first_panel + p) * Format::kStretchBytes);
  };
  uint32_t parameters[Shape::kWarpPanels];
  TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kWarpPanels; ++p) parameters[p] =
      p < own_panels ? Format::parameters(panel_at(p)) : 0;
  TESSERA_UNROLL for (uint32_t pair = 0; pair < kStretchPairs; ++pair) {
    if (pair >= pairs) break;
    PairOperands a[Shape::kWarpPanels] = {};
    TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kWarpPanels; ++p) {
      if (p < own_panels) Format::load_pair(panel_at(p), pair, parameters[p], a[p]);
    }
    TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e) {
      uint32_t b[4];
      const uint32_t token = first_token + 8 * e + lane_index() % 8;
      ldmatrix_x4(b, stage.as<std::byte>(swizzled_chunk(token, 4 * pair + lane_index() / 8)).address());
      TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kWarpPanels; ++p) {
        TESSERA_UNROLL for (uint32_t step = 0; step < 2; ++step) {
          const uint32_t own[2] = {b[2 * step], b[2 * step + 1]};
          int32_t(&d)[4] = reinterpret_cast<int32_t(&)[4]>(sums[(p * Shape::kEights + e) * 4]);
          mma_m16n8k32_u8s8(d, a[p][step], own);
        }
      }
    }
  }
}

template <class Shape>
TESSERA_KERNEL TESSERA_BLOCK_OF(kTileThreads) void linear_sm80_tiles(TilesJob job) {
  using Format = typename Shape::Format;
  const Shared<std::byte> shared(shared_memory());
  const uint64_t policy = weights_policy(job);
  const uint32_t panels = job.linear.panels;
  TileWalk walk(job, block_x());
  TileSegment segment;
  while (walk.next(segment)) {
    const uint32_t first_panel = segment.tile / job.token_tiles * kTilePanels;
    const uint32_t first_token = segment.tile % job.token_tiles * Shape::kTokens;
    const uint32_t own_first = first_panel + warp_index() / 2 * Shape::kWarpPanels;
    const uint32_t own_panels = own_first >= panels                       ? 0
                                : panels - own_first < Shape::kWarpPanels ? panels - own_first
                                                                          : Shape::kWarpPanels;
    const uint32_t own_token = first_token + warp_index() % 2 * (Shape::kTokens / 2);
    const auto stage_of = [&](uint32_t step) {
      return shared.as<std::byte>((step - segment.begin) % Shape::kStages * Shape::kStageBytes);
    };
    const auto fill = [&](uint32_t step) {
      if (step < segment.end)
        fill_stage<Shape>(job.linear, first_panel, first_token, step, stage_of(step), policy);
      cp_async_commit();
    };
    for (uint32_t i = 0; i + 1 < Shape::kStages; ++i) fill(segment.begin + i);
    int32_t sums[Shape::kValues] = {};
    for (uint32_t step = segment.begin; step < segment.end; ++step) {
      cp_async_wait<Shape::kStages - 2>();
      // All copies of this stage have landed, and all warps have finished with the previous one.
      block_barrier();
      fill(step + Shape::kStages - 1);
      add_stage<Shape>(sums, stage_of(step), pairs_of_stretch(job.linear, step), own_panels);
    }
    block_barrier();  // before the next segment's copies
    if (segment.end < job.steps) {
      store_partial_sums(job, sums, thread_index());
      continue;
    }
    if (segment.begin > 0) add_partial_sums(job, segment.tile, sums, thread_index());
    TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kWarpPanels; ++p) {
      const LaneRows<Format> rows(job.linear, own_first + p);
      TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e)
          rows.finish(own_token + 8 * e, sums + (p * Shape::kEights + e) * 4);
    }
  }
}

template <class Format, uint32_t kTokens>
void launch_sm80_tiles(Queue& queue, const IntegerJob& job) {
  using Shape = Sm80Tile<Format, kTokens>;
  const TilesJob tiles = divide(queue, job, kTokens, true);
  // Not early: a multiprocessor has room for two blocks, and the first ones to become free would get two
  // each.
  launch(queue, {tiles.blocks, 1, 1, kTileThreads, Shape::kSharedBytes}, &linear_sm80_tiles<Shape>, tiles);
}

}  // namespace tessera::cuda
