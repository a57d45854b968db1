// Integer products for many tokens with wgmma, for sm_90a: tiles of 128 rows by 64, 128 or 256 tokens.
//
// A block processes a whole run of steps (int8_split_tiles.h). Its first warpgroup fills a ring of stages of
// 128 columns: one thread starts bulk copies of the weights, three warps copy activations, 16 bytes a thread,
// to their swizzled places in B. Each of the other two warpgroups has 64 rows: it expands its weights in
// registers as A while the tensor cores multiply the previous stage. Sums stay in registers.
//
// Each stage has two mbarriers. `full` completes when the announced weights have landed and each copying warp
// has arrived, after its copies and the proxy fence that wgmma needs to read what threads have written.
// `free` completes when each warp of the other warpgroups has arrived, after waiting for its products.
#pragma once

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/kernels/int8_split_tiles.h"

namespace tessera::cuda {

template <class Format_, uint32_t kTokens_>
struct Sm90Tile {
  using Format = Format_;
  static constexpr uint32_t kTokens = kTokens_;
  static constexpr uint32_t kGroupThreads = 128;
  static constexpr uint32_t kGroups = 3;  // warpgroups; the first one copies
  static constexpr uint32_t kValues = kTokens / 2;
  static constexpr uint32_t kTokenBytes = kTokens * kStretchColumns;
  static constexpr uint32_t kWeightBytes = kTilePanels * Format::kStretchBytes;
  static constexpr uint32_t kMostStages = ((227u << 10) - 1024) / (kTokenBytes + kWeightBytes);
  static constexpr uint32_t kStages = kMostStages < 8 ? kMostStages : 8;
  // Copies of activations that a thread has in flight: it arrives at a stage's barrier when it has begun
  // kAhead later stages. Consumers hold two stages.
  static constexpr uint32_t kAhead = kStages > 4 ? 2 : 1;
  static constexpr uint32_t kWeightsAt = kStages * kTokenBytes;
  static constexpr uint32_t kBarriersAt = kWeightsAt + kStages * kWeightBytes;
  static constexpr uint32_t kSharedBytes = kBarriersAt + 2 * kStages * 8;
  static_assert(kStages > kAhead + 2, "otherwise copying warps and consumers could wait for each other");
  static_assert(kSharedBytes <= 227u << 10, "the maximum on compute capability 9.0");
  static constexpr uint32_t kCopyWarps = kGroupThreads / 32 - 1;  // warps that copy activations
  static constexpr uint32_t kFullArrivals = kCopyWarps + 1;
  static constexpr uint32_t kFreeArrivals = 2 * kGroupThreads / 32;
};

template <class Shape>
struct Sm90Stages {
  TESSERA_DEVICE static Shared<std::byte> tokens(uint32_t stage) {
    return Shared<std::byte>(shared_memory() + stage * Shape::kTokenBytes);
  }
  TESSERA_DEVICE static Shared<std::byte> weights(uint32_t stage) {
    return Shared<std::byte>(shared_memory() + Shape::kWeightsAt + stage * Shape::kWeightBytes);
  }
  TESSERA_DEVICE static std::byte* full(uint32_t stage) {
    return shared_memory() + Shape::kBarriersAt + stage * 8;
  }
  TESSERA_DEVICE static std::byte* free(uint32_t stage) { return full(Shape::kStages + stage); }
};

// One thread of the first warp: starts the copies of all weights of the run, each as soon as its stage is
// free. Weights are sealed, so it does not wait for earlier kernels.
template <class Shape>
TESSERA_DEVICE void copy_weights(const TilesJob& job) {
  using Format = typename Shape::Format;
  using Stages = Sm90Stages<Shape>;
  const IntegerJob& linear = job.linear;
  const uint64_t policy = weights_policy(job);
  RingPlace<Shape::kStages> place;
  TileWalk walk(job, block_x());
  TileSegment segment;
  while (walk.next(segment)) {
    const uint32_t first_panel = segment.tile / job.token_tiles * kTilePanels;
    const uint32_t left = linear.panels - first_panel;
    const uint32_t own_panels = left < kTilePanels ? left : kTilePanels;
    for (uint32_t step = segment.begin; step < segment.end; ++step) {
      mbarrier_wait(Stages::free(place.stage), place.parity ^ 1);
      const uint32_t bytes = Format::bytes_of(pairs_of_stretch(linear, step));
      mbarrier_arrive_expect(Stages::full(place.stage), own_panels * bytes);
      const Shared<std::byte> to = Stages::weights(place.stage);
      copy_panels(linear, first_panel, own_panels, size_t{step} * Format::kStretchBytes, to,
                  Format::kStretchBytes, bytes, Stages::full(place.stage), policy);
      place.advance();
    }
  }
}

// The three other warps of the first warpgroup.
template <class Shape>
TESSERA_DEVICE void copy_activations(const TilesJob& job) {
  using Stages = Sm90Stages<Shape>;
  const IntegerJob& linear = job.linear;
  RingPlace<Shape::kStages> place;
  RingPlace<Shape::kStages> copied;  // the oldest stage whose copies this thread has not waited for
  uint32_t begun = 0;
  const auto arrive = [&] {
    proxy_fence();
    warp_barrier();
    if (lane_index() == 0) mbarrier_arrive(Stages::full(copied.stage));
    copied.advance();
  };
  // Eight threads copy a token's 128 columns.
  const uint32_t chunk = thread_index() % 8;
  const uint32_t first_copied = (thread_index() - 32) / 8;
  TileWalk walk(job, block_x());
  TileSegment segment;
  while (walk.next(segment)) {
    const uint32_t first_token = segment.tile % job.token_tiles * Shape::kTokens;
    for (uint32_t step = segment.begin; step < segment.end; ++step) {
      mbarrier_wait(Stages::free(place.stage), place.parity ^ 1);
      const Shared<std::byte> to = Stages::tokens(place.stage);
      for (uint32_t token = first_copied; token < Shape::kTokens; token += 32 * Shape::kCopyWarps / 8)
        cp_async_16(to.template as<std::byte>(swizzled_chunk(token, chunk)).address(),
                    (linear.x.bytes(existing_token(linear, first_token + token)) +
                     (step * kStretchColumns + chunk * 16))
                        .address());
      cp_async_commit();
      place.advance();
      if (++begun > Shape::kAhead) {
        cp_async_wait<Shape::kAhead>();
        arrive();
      }
    }
  }
  cp_async_wait<0>();
  for (uint32_t left = begun < Shape::kAhead ? begun : Shape::kAhead; left > 0; --left) arrive();
}

// A warp of the other two warpgroups, which computes one panel of each tile.
template <class Shape>
class Sm90Warp {
 public:
  using Format = typename Shape::Format;
  using Stages = Sm90Stages<Shape>;

  TESSERA_DEVICE explicit Sm90Warp(const TilesJob& job) : job_(job) {}

  // Processes the block's run.
  TESSERA_DEVICE void run() {
    const uint32_t thread = thread_index() - Shape::kGroupThreads;
    const uint32_t own = thread / 32;
    const uint32_t panels = job_.linear.panels;
    TileWalk walk(job_, block_x());
    TileSegment segment;
    while (walk.next(segment)) {
      const uint32_t panel = segment.tile / job_.token_tiles * kTilePanels + own;
      const uint32_t first_token = segment.tile % job_.token_tiles * Shape::kTokens;
      int32_t sums[Shape::kValues] = {};
      wgmma_done(sums);  // keeps the zeros before the first fence
      add_steps(sums, segment, own, panel < panels);
      if (segment.end < job_.steps) {
        store_partial_sums_if_split(sums, thread);
        continue;
      }
      if constexpr (kSplit) {
        if (segment.begin > 0) add_partial_sums(job_, segment.tile, sums, thread);
      }
      const LaneRows<Format> rows(job_.linear, panel);
      TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kTokens / 8; ++e)
          rows.finish(first_token + 8 * e, sums + 4 * e);
    }
  }

 private:
  // Tiles whose sums do not fit in a block's scratch memory are never split.
  static constexpr bool kSplit = kTileThreads * Shape::kValues * 4 <= Queue::kScratchShare;

  TESSERA_DEVICE void store_partial_sums_if_split(const int32_t (&sums)[Shape::kValues],
                                                  uint32_t thread) const {
    if constexpr (kSplit) store_partial_sums(job_, sums, thread);
  }

  // Two sets of operands alternate: one is filled while products read the other.
  TESSERA_DEVICE void add_steps(int32_t (&sums)[Shape::kValues], const TileSegment& segment, uint32_t own,
                                bool exists) {
    PairOperands even[kStretchPairs] = {};
    PairOperands odd[kStretchPairs] = {};
    for (uint32_t step = segment.begin; step < segment.end; step += 2) {
      add_step(sums, even, segment, step, own, exists);
      if (step + 1 < segment.end) add_step(sums, odd, segment, step + 1, own, exists);
    }
    wgmma_wait<0>();
    wgmma_done(sums);
    release();
  }

  TESSERA_DEVICE void add_step(int32_t (&sums)[Shape::kValues], PairOperands (&a)[kStretchPairs],
                               const TileSegment& segment, uint32_t step, uint32_t own, bool exists) {
    const uint32_t pairs = pairs_of_stretch(job_.linear, step);
    mbarrier_wait(Stages::full(place_.stage), place_.parity);
    const Shared<std::byte> stretch =
        Stages::weights(place_.stage).template as<std::byte>(own * Format::kStretchBytes);
    if (exists) {
      const uint32_t parameters = Format::parameters(stretch);
      TESSERA_UNROLL for (uint32_t pair = 0; pair < kStretchPairs; ++pair) {
        if (pair < pairs) Format::load_pair(stretch, pair, parameters, a[pair]);
      }
    }
    const uint64_t b = swizzled_descriptor(shared_address(Stages::tokens(place_.stage).address()));
    const bool first = step == segment.begin;
    if (pairs == kStretchPairs) {
      multiply_pairs<kStretchPairs>(sums, a, b, !first);
    } else {
      multiply_pairs<1>(sums, a, b, !first);
    }
    if (!first) {
      wgmma_wait<1>();
      release();
    }
    place_.advance();
  }

  // One group of products, without branches between them.
  template <uint32_t kPairs>
  TESSERA_DEVICE static void multiply_pairs(int32_t (&sums)[Shape::kValues],
                                            const PairOperands (&a)[kStretchPairs], uint64_t b,
                                            bool accumulate) {
    wgmma_fence();
    TESSERA_UNROLL for (uint32_t i = 0; i < 2 * kPairs; ++i)
        wgmma_k32_u8s8(sums, a[i / 2][i % 2], advanced(b, i), accumulate || i > 0);
    wgmma_commit();
  }

  // Frees the oldest stage that this warp still holds.
  TESSERA_DEVICE void release() {
    warp_barrier();
    if (lane_index() == 0) mbarrier_arrive(Stages::free(read_.stage));
    read_.advance();
  }

  const TilesJob& job_;
  RingPlace<Shape::kStages> place_;
  RingPlace<Shape::kStages> read_;
};

template <class Shape>
TESSERA_KERNEL TESSERA_BLOCK_OF(Shape::kGroups* Shape::kGroupThreads) void linear_sm90_tiles(TilesJob job) {
  if constexpr (kHasWarpgroups) {
    using Stages = Sm90Stages<Shape>;
    griddepcontrol_launch_dependents();
    if (thread_index() == 0) {
      for (uint32_t i = 0; i < Shape::kStages; ++i) {
        mbarrier_init(Stages::full(i), Shape::kFullArrivals);
        mbarrier_init(Stages::free(i), Shape::kFreeArrivals);
      }
      mbarrier_init_fence();
    }
    block_barrier();
    if (thread_index() < Shape::kGroupThreads) {
      shrink_registers<56>();
      if (thread_index() == 0) copy_weights<Shape>(job);
      griddepcontrol_wait();
      if (warp_index() > 0) copy_activations<Shape>(job);
    } else {
      grow_registers<224>();
      griddepcontrol_wait();
      Sm90Warp<Shape>(job).run();
    }
  }
}

template <class Format, uint32_t kTokens>
void launch_sm90_tiles(Queue& queue, const IntegerJob& job) {
  using Shape = Sm90Tile<Format, kTokens>;
  const TilesJob tiles = divide(queue, job, kTokens, kTokens < 256);
  launch(queue, {tiles.blocks, 1, 1, Shape::kGroups * Shape::kGroupThreads, Shape::kSharedBytes, true},
         &linear_sm90_tiles<Shape>, tiles);
}

}  // namespace tessera::cuda
