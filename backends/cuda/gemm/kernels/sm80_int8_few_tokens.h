// Integer products for 1 to 16 tokens, where the time is that of reading the weights.
//
// A block has a run of panels and processes four at a time. Its warps divide the columns, and add their exact
// sums in shared memory after every four panels. Each warp copies its stretches of the panels ahead into a
// ring of its own: on sm_90 by bulk copies that complete on an mbarrier, before that by 16-byte asynchronous
// copies. The activations of the same columns are copied with them, so that shared memory does not limit the
// number of columns. Warps wait for each other only when four panels are done.
#pragma once

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/formats/integer_formats.h"

namespace tessera::cuda {

// kEights: 1 for up to 8 tokens, 2 for up to 16. kBulk: with bulk copies.
template <class Format_, uint32_t kEights_, bool kBulk_>
struct FewTokens {
  using Format = Format_;
  static constexpr uint32_t kEights = kEights_;
  static constexpr bool kBulk = kBulk_;
  static constexpr uint32_t kTokens = 8 * kEights;
  static constexpr uint32_t kWarps = kBulk ? 8 : 4;
  static constexpr uint32_t kPanels = 4;
  static constexpr uint32_t kPanelRows = tile::kPanelRows;
  static constexpr uint32_t kSlots = kBulk && kEights == 1 ? 4 : 3;
  // A piece, which a warp copies at a time: about 1 KiB of each panel.
  static constexpr uint32_t kPairs = has_nibbles(Format::kFormat) ? 2 : 1;
  static constexpr uint32_t kColumns = kPairs * kPairColumns;
  static constexpr uint32_t kPieceBytes =
      Format::kFormat == WeightFormat::w4a8_g128 ? Format::kStretchBytes : kPairs * Format::kPairBytes;
  // 16 more than a power of two, so that the eight rows that ldmatrix reads at once are in different banks.
  static constexpr uint32_t kRowBytes = kColumns + 16;
  static constexpr uint32_t kSlotBytes = kPanels * kPieceBytes + kTokens * kRowBytes;

  // Shared memory: mbarriers, sums, rings. The sums of a token have 4 words of padding, so that the lanes of
  // a fragment write to different banks.
  static constexpr uint32_t kSumsAt = 256;
  static constexpr uint32_t kSumStride = kPanels * kPanelRows + 4;
  static constexpr uint32_t kWarpSums = kTokens * kSumStride;
  static constexpr uint32_t kSlotsAt = kSumsAt + kWarps * kWarpSums * 4;
  static constexpr uint32_t kSharedBytes = kSlotsAt + kWarps * kSlots * kSlotBytes;
  static_assert(kWarps * kSlots * 8 <= kSumsAt);
  static_assert(kSharedBytes <= (kBulk ? 227u << 10 : 99u << 10), "available on every device of the target");
};

// Position of a warp: up to four panels of its block, and a piece of their columns.
struct PieceCursor {
  uint32_t panel;  // the first of up to four
  uint32_t piece;

  TESSERA_DEVICE void advance(uint32_t warps, uint32_t pieces, uint32_t panels) {
    piece += warps;
    if (piece < pieces) return;
    piece = warp_index();
    panel += panels;
  }
};

template <class Shape>
class PieceRing {
 public:
  using Format = typename Shape::Format;

  TESSERA_DEVICE PieceRing(const IntegerJob& job, uint32_t end_panel)
      : job_(job),
        end_panel_(end_panel),
        policy_(evict_first_policy()),
        x_(job.x.bytes(lane_index() / kChunks) + lane_index() % kChunks * 16) {}

  TESSERA_DEVICE Shared<std::byte> slot(uint32_t index) const {
    return Shared<std::byte>(shared_memory() + Shape::kSlotsAt +
                             (warp_index() * Shape::kSlots + index) * Shape::kSlotBytes);
  }
  TESSERA_DEVICE std::byte* barrier(uint32_t index) const {
    return shared_memory() + (warp_index() * Shape::kSlots + index) * 8;
  }
  TESSERA_DEVICE uint32_t panels_at(uint32_t panel) const {
    return end_panel_ - panel < Shape::kPanels ? end_panel_ - panel : Shape::kPanels;
  }
  TESSERA_DEVICE uint32_t pairs_at(uint32_t piece) const {
    const uint32_t left = job_.columns / kPairColumns - piece * Shape::kPairs;
    return left < Shape::kPairs ? left : Shape::kPairs;
  }

  // Starts the copies of a piece, as one group; an empty group beyond the last panel.
  TESSERA_DEVICE void fill(uint32_t index, const PieceCursor& at) const {
    fill_weights(index, at);
    fill_activations(index, at);
  }

  TESSERA_DEVICE void fill_weights(uint32_t index, const PieceCursor& at) const {
    if (at.panel < end_panel_) {
      const uint32_t panels = panels_at(at.panel);
      const uint32_t bytes = Format::bytes_of(pairs_at(at.piece));
      const Shared<std::byte> to = slot(index);
      if constexpr (Shape::kBulk) {
        if (lane_index() == 0) {
          mbarrier_arrive_expect(barrier(index), panels * bytes);
          copy_panels(job_, at.panel, panels, size_t{at.piece} * Shape::kPieceBytes, to, Shape::kPieceBytes,
                      bytes, barrier(index), policy_);
        }
      } else {
        for (uint32_t p = 0; p < panels; ++p) {
          const Global<const std::byte> panel =
              job_.codes_of(at.panel + p) + size_t{at.piece} * Shape::kPieceBytes;
          for (uint32_t byte = 16 * lane_index(); byte < bytes; byte += 512)
            cp_async_16_hinted(to.template as<std::byte>(p * Shape::kPieceBytes + byte).address(),
                               (panel + byte).address(), policy_);
        }
      }
    }
  }

  // Starts the copies of the activations and closes the group.
  TESSERA_DEVICE void fill_activations(uint32_t index, const PieceCursor& at) const {
    if (at.panel < end_panel_) {
      const Shared<std::byte> own = rows(slot(index))
                                        .template as<std::byte>(lane_index() / kChunks * Shape::kRowBytes +
                                                                lane_index() % kChunks * 16);
      Global<std::byte> x = x_ + at.piece * Shape::kColumns;
      TESSERA_UNROLL for (uint32_t token = 0; token < Shape::kTokens; token += kAtOnce) {
        if (token + lane_index() / kChunks < job_.tokens)
          cp_async_16(own.template as<std::byte>(token * Shape::kRowBytes).address(), x.address());
        x = x + kAtOnce * job_.x.stride;
      }
    }
    cp_async_commit();
  }

  // Where the activations begin in a slot.
  TESSERA_DEVICE static Shared<std::byte> rows(Shared<std::byte> slot) {
    return slot.as<std::byte>(Shape::kPanels * Shape::kPieceBytes);
  }

 private:
  // kChunks lanes copy one token's piece, so a warp copies kAtOnce tokens at once.
  static constexpr uint32_t kChunks = Shape::kColumns / 16;
  static constexpr uint32_t kAtOnce = 32 / kChunks;

  const IntegerJob& job_;
  uint32_t end_panel_;
  uint64_t policy_;
  Global<std::byte> x_;  // the lane's 16 bytes of its first token in the first piece
};

// Adds a piece's products to the lane's sums of each panel.
template <class Shape>
TESSERA_DEVICE void add_piece(int32_t (&sums)[Shape::kPanels][Shape::kEights][4], Shared<std::byte> slot,
                              uint32_t panels, uint32_t pairs, uint32_t tokens) {
  using Format = typename Shape::Format;
  uint32_t b[Shape::kPairs][Shape::kEights][4];
  TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e) {
    // Rows beyond the last token repeat it; their sums are not used.
    const uint32_t token = 8 * e + lane_index() % 8;
    const uint32_t row = token < tokens ? token : tokens - 1;
    const Shared<std::byte> at =
        PieceRing<Shape>::rows(slot).template as<std::byte>(row * Shape::kRowBytes + 16 * (lane_index() / 8));
    TESSERA_UNROLL for (uint32_t pair = 0; pair < Shape::kPairs; ++pair)
        ldmatrix_x4(b[pair][e], at.as<std::byte>(pair * kPairColumns).address());
  }
  TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
    if (p >= panels) break;
    const Shared<std::byte> stretch = slot.as<std::byte>(p * Shape::kPieceBytes);
    const uint32_t parameters = Format::parameters(stretch);
    TESSERA_UNROLL for (uint32_t pair = 0; pair < Shape::kPairs; ++pair) {
      if (pair >= pairs) break;
      PairOperands a;
      Format::load_pair(stretch, pair, parameters, a);
      TESSERA_UNROLL for (uint32_t step = 0; step < 2; ++step) {
        TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e) {
          const uint32_t own[2] = {b[pair][e][2 * step], b[pair][e][2 * step + 1]};
          mma_m16n8k32_u8s8(sums[p][e], a[step], own);
        }
      }
    }
  }
}

// Adds the sums of the block's warps for up to four panels, and stores the results.
template <class Shape>
TESSERA_DEVICE void finish_panels(const IntegerJob& job,
                                  const int32_t (&sums)[Shape::kPanels][Shape::kEights][4],
                                  uint32_t first_panel, uint32_t panels) {
  const Shared<int32_t> all(shared_memory() + Shape::kSumsAt);  // [warps][tokens][rows]
  TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
    TESSERA_UNROLL for (uint32_t i = 0; i < 4 * Shape::kEights; ++i) {
      const uint32_t token = i / 4 * 8 + 2 * (lane_index() % 4) + i % 2;
      const uint32_t row = Shape::kPanelRows * p + lane_index() / 4 + i % 4 / 2 * 8;
      all.store(warp_index() * Shape::kWarpSums + token * Shape::kSumStride + row, sums[p][i / 4][i % 4]);
    }
  }
  block_barrier();
  const uint32_t rows = Shape::kPanelRows * panels;
  for (uint32_t i = thread_index(); i < rows * job.tokens; i += 32 * Shape::kWarps) {
    const uint32_t token = i / rows;
    const uint32_t panel = first_panel + i % rows / Shape::kPanelRows;
    const PlacedMatrix& matrix = job.matrix_of(panel);
    const uint32_t row = (panel - matrix.first_panel) * Shape::kPanelRows + i % Shape::kPanelRows;
    if (row >= matrix.rows) continue;
    int32_t sum = 0;
    for (uint32_t warp = 0; warp < Shape::kWarps; ++warp)
      sum += all[warp * Shape::kWarpSums + token * Shape::kSumStride + i % rows];
    job.y.floats(token).store(matrix.first_column + row,
                              finish_integer<typename Shape::Format>(job, matrix, row, token, sum));
  }
}

struct FewTokensJob {
  IntegerJob linear;
  uint32_t blocks = 0;
};

template <class Shape>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * Shape::kWarps) void linear_few_tokens(FewTokensJob few) {
  if constexpr (!Shape::kBulk || kHasBulkCopies) {
    griddepcontrol_launch_dependents();
    const IntegerJob& job = few.linear;
    const uint32_t first = static_cast<uint32_t>(uint64_t{job.panels} * block_x() / few.blocks);
    const uint32_t end = static_cast<uint32_t>(uint64_t{job.panels} * (block_x() + 1) / few.blocks);
    const uint32_t pieces = (job.columns + Shape::kColumns - 1) / Shape::kColumns;
    const PieceRing<Shape> ring(job, end);
    if constexpr (Shape::kBulk) {
      if (lane_index() == 0) {
        for (uint32_t i = 0; i < Shape::kSlots; ++i) mbarrier_init(ring.barrier(i), 1);
        mbarrier_init_fence();
      }
      warp_barrier();
    }
    PieceCursor next{warp_index() < pieces ? first : end, warp_index()};
    // The first weights are copied before the kernels that produce the activations have ended.
    PieceCursor early = next;
    for (uint32_t i = 0; i + 1 < Shape::kSlots; ++i) {
      ring.fill_weights(i, early);
      if (early.panel < end) early.advance(Shape::kWarps, pieces, Shape::kPanels);
    }
    griddepcontrol_wait();
    for (uint32_t i = 0; i + 1 < Shape::kSlots; ++i) {
      ring.fill_activations(i, next);
      if (next.panel < end) next.advance(Shape::kWarps, pieces, Shape::kPanels);
    }
    uint32_t current = 0;
    uint32_t parity = 0;
    for (uint32_t panel = first; panel < end; panel += Shape::kPanels) {
      int32_t sums[Shape::kPanels][Shape::kEights][4] = {};
      const uint32_t own_panels = ring.panels_at(panel);
      for (uint32_t piece = warp_index(); piece < pieces; piece += Shape::kWarps) {
        cp_async_wait<Shape::kSlots - 2>();
        if constexpr (Shape::kBulk) mbarrier_wait(ring.barrier(current), parity);
        // Now all lanes' copies have landed, and all have finished with the previous slot, which is refilled.
        warp_barrier();
        ring.fill(current == 0 ? Shape::kSlots - 1 : current - 1, next);
        if (next.panel < end) next.advance(Shape::kWarps, pieces, Shape::kPanels);
        add_piece<Shape>(sums, ring.slot(current), own_panels, ring.pairs_at(piece), job.tokens);
        if (++current == Shape::kSlots) {
          current = 0;
          parity ^= 1;
        }
      }
      if (panel != first) block_barrier();  // until the previous panels' sums have been read
      finish_panels<Shape>(job, sums, panel, own_panels);
    }
  }
}

template <class Shape>
void launch_few_tokens(Queue& queue, const IntegerJob& job) {
  // Two blocks share a multiprocessor if its shared memory, 1 KiB more than the maximum of a block, is enough
  // for both.
  const bool two =
      !Shape::kBulk && 2 * (size_t{Shape::kSharedBytes} + 1024) <= queue.facts().shared_bytes + 1024;
  const auto most = static_cast<uint32_t>(queue.facts().processors) * (two ? 2 : 1);
  const FewTokensJob few{job, job.panels < most ? job.panels : most};
  launch(queue, {few.blocks, 1, 1, 32 * Shape::kWarps, Shape::kSharedBytes, true}, &linear_few_tokens<Shape>,
         few);
}

}  // namespace tessera::cuda
