// Products with 16-bit weights for 1 to 16 tokens, where the time is that of reading the weights.
//
// A block has a run of panels and processes two at a time; each of its warps has every kWarps-th chunk of 256
// columns. A warp copies 64 columns of weights and activations at a time into a ring of its own. After each
// round of one chunk a warp the sums are exchanged in shared memory and added in order.
#pragma once

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/formats/half_formats.h"

namespace tessera::cuda::halves {

// kEights: 1 for up to 8 tokens, 2 for up to 16. kLarge: for devices with up to 227 KiB of shared memory a
// block.
template <class Format_, uint32_t kEights_, bool kLarge>
struct Few {
  using Format = Format_;
  static constexpr uint32_t kEights = kEights_;
  static constexpr uint32_t kTokens = 8 * kEights;
  static constexpr uint32_t kWarps = kLarge ? 8 : 4;
  static constexpr uint32_t kSlots = (kLarge ? 5 : 4) - kEights;
  static constexpr uint32_t kPanels = 2;
  static constexpr uint32_t kRows = 16 * kPanels;

  // A piece, which a warp copies at a time: weights and activations of kBlocks blocks of 32 columns.
  static constexpr uint32_t kBlocks = 2;
  static constexpr uint32_t kColumns = kBlocks * kBlockColumns;
  static constexpr uint32_t kInputsAt = kRows * kWeightRowBytes;
  static constexpr uint32_t kBlockBytes = kInputsAt + kTokens * kInputRowBytes;
  static constexpr uint32_t kSlotBytes = kBlocks * kBlockBytes;
  static constexpr uint32_t kChunkPieces = kChunkColumns / kColumns;
  static_assert(layout::float_row_elements(1) % kColumns == 0, "weights are copied whole");

  // Sums of a round [warps][tokens][rows], with 4 floats of padding a token, so that lanes write to different
  // banks.
  static constexpr uint32_t kSumStride = kRows + 4;
  static constexpr uint32_t kWarpSums = kTokens * kSumStride;
  static constexpr uint32_t kSlotsAt = kWarps * kWarpSums * 4;
  static constexpr uint32_t kSharedBytes = kSlotsAt + kWarps * kSlots * kSlotBytes;
  static constexpr uint32_t kOwnSums = kRows * kTokens / (32 * kWarps);  // of a thread
  static_assert(kSharedBytes <= (kLarge ? 227u << 10 : 99u << 10));
};

// Position of a warp: the first of up to two panels of its block, and a piece of their columns.
struct Cursor {
  uint32_t panel;
  uint32_t piece;

  template <class Shape>
  TESSERA_DEVICE void advance(uint32_t pieces) {
    ++piece;
    if (piece % Shape::kChunkPieces == 0) piece += (Shape::kWarps - 1) * Shape::kChunkPieces;
    if (piece < pieces) return;
    piece = warp_index() * Shape::kChunkPieces;
    panel += Shape::kPanels;
  }
};

template <class Shape>
class Ring {
 public:
  TESSERA_DEVICE Ring(const LinearJob& job, const Matrix& matrix, uint32_t end_panel)
      : end_panel_(end_panel),
        place_(lane_index() % kPieces / kWeightPieces * Shape::kBlockBytes +
               weight_byte(lane_index() / kPieces, lane_index() % kWeightPieces)),
        row_bytes_(matrix.row_bytes()),
        policy_(evict_first_policy()),
        weights_(matrix.row(lane_index() / kPieces) + 16 * (lane_index() % kPieces)),
        inputs_(job, matrix.columns(), lane_index() / kInputs, 4 * (lane_index() % kInputs),
                lane_index() % kInputs / kInputPieces * Shape::kBlockBytes + Shape::kInputsAt +
                    input_byte(lane_index() / kInputs, lane_index() % kInputPieces)) {}

  TESSERA_DEVICE Shared<std::byte> slot(uint32_t index) const {
    return Shared<std::byte>(shared_memory() + Shape::kSlotsAt +
                             (warp_index() * Shape::kSlots + index) * Shape::kSlotBytes);
  }
  TESSERA_DEVICE uint32_t panels_at(uint32_t panel) const {
    return end_panel_ - panel < Shape::kPanels ? end_panel_ - panel : Shape::kPanels;
  }

  // Starts the copies of a piece, as one group; an empty group beyond the last panel.
  TESSERA_DEVICE void fill(uint32_t index, const Cursor& at) const {
    fill_weights(index, at);
    fill_inputs(index, at);
  }

  TESSERA_DEVICE void fill_weights(uint32_t index, const Cursor& at) const {
    if (at.panel < end_panel_) {
      const Shared<std::byte> to = slot(index);
      const uint32_t rows = 16 * panels_at(at.panel);
      Global<const std::byte> from =
          weights_ + (16 * at.panel * row_bytes_ + size_t{at.piece} * (2 * Shape::kColumns));
      TESSERA_UNROLL for (uint32_t row = 0; row < Shape::kRows; row += kRowsAtOnce) {
        if (row >= rows) break;
        // The swizzle of these rows is that of the first one, or differs in one bit.
        const uint32_t place = (place_ ^ row / 2 % kWeightPieces * 16) + row * kWeightRowBytes;
        cp_async_16_hinted(to.template as<std::byte>(place).address(), from.address(), policy_);
        from = from + kRowsAtOnce * row_bytes_;
      }
    }
  }

  // Starts the copies of the activations and closes the group.
  TESSERA_DEVICE void fill_inputs(uint32_t index, const Cursor& at) const {
    if (at.panel < end_panel_) inputs_.start(at.piece * Shape::kColumns, slot(index));
    cp_async_commit();
  }

 private:
  static constexpr uint32_t kPieces = Shape::kBlocks * kWeightPieces;  // of a row
  static constexpr uint32_t kRowsAtOnce = 32 / kPieces;
  static constexpr uint32_t kInputs = Shape::kBlocks * kInputPieces;  // of a token
  static constexpr uint32_t kTokensAtOnce = 32 / kInputs;

  uint32_t end_panel_;
  uint32_t place_;
  size_t row_bytes_;
  uint64_t policy_;
  Global<const std::byte> weights_;  // the lane's 16 bytes of its first row
  InputCopies<kTokensAtOnce, Shape::kTokens / kTokensAtOnce> inputs_;
};

template <class Shape>
TESSERA_DEVICE void add_piece(float (&sums)[Shape::kPanels][Shape::kEights][4], Shared<std::byte> slot,
                              uint32_t panels) {
  TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kBlocks; ++i) {
    const Shared<std::byte> block = slot.as<std::byte>(i * Shape::kBlockBytes);
    const Shared<std::byte> inputs = block.as<std::byte>(Shape::kInputsAt);
    if (panels == Shape::kPanels) {
      add_block<typename Shape::Format>(sums, block, inputs);
    } else {
      float(&first)[1][Shape::kEights][4] = reinterpret_cast<float(&)[1][Shape::kEights][4]>(sums);
      add_block<typename Shape::Format>(first, block, inputs);
    }
  }
}

struct FewJob {
  LinearJob linear;
  uint32_t blocks = 0;
};

template <class Shape>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * Shape::kWarps) void linear_half_few(FewJob few) {
  griddepcontrol_launch_dependents();
  const LinearJob& job = few.linear;
  const Matrix matrix(job);
  const uint32_t panels = matrix.panels();
  const uint32_t first = static_cast<uint32_t>(uint64_t{panels} * block_x() / few.blocks);
  const uint32_t end = static_cast<uint32_t>(uint64_t{panels} * (block_x() + 1) / few.blocks);
  const uint32_t pieces = (matrix.columns() + Shape::kColumns - 1) / Shape::kColumns;
  const uint32_t chunks = (pieces + Shape::kChunkPieces - 1) / Shape::kChunkPieces;
  const Ring<Shape> ring(job, matrix, end);
  const Shared<float> all_sums(shared_memory());
  const Shared<float> own_sums = all_sums.template as<float>(
      4 * (warp_index() * Shape::kWarpSums + 2 * (lane_index() % 4) * Shape::kSumStride + lane_index() / 4));
  Cursor next{warp_index() < chunks ? first : end, warp_index() * Shape::kChunkPieces};
  // The first weights are copied before the kernels that produce the activations have ended.
  Cursor early = next;
  for (uint32_t i = 0; i + 1 < Shape::kSlots; ++i) {
    ring.fill_weights(i, early);
    if (early.panel < end) early.template advance<Shape>(pieces);
  }
  griddepcontrol_wait();
  for (uint32_t i = 0; i + 1 < Shape::kSlots; ++i) {
    ring.fill_inputs(i, next);
    if (next.panel < end) next.template advance<Shape>(pieces);
  }
  uint32_t current = 0;
  for (uint32_t panel = first; panel < end; panel += Shape::kPanels) {
    const uint32_t own_panels = ring.panels_at(panel);
    float totals[Shape::kOwnSums] = {};
    for (uint32_t round = 0; round < chunks; round += Shape::kWarps) {
      const uint32_t chunk = round + warp_index();
      float sums[Shape::kPanels][Shape::kEights][4] = {};
      for (uint32_t i = 0; i < Shape::kChunkPieces && chunk * Shape::kChunkPieces + i < pieces; ++i) {
        cp_async_wait<Shape::kSlots - 2>();
        // Now all lanes' copies have landed, and all have finished with the previous slot, which is refilled.
        warp_barrier();
        ring.fill(current == 0 ? Shape::kSlots - 1 : current - 1, next);
        if (next.panel < end) next.template advance<Shape>(pieces);
        add_piece<Shape>(sums, ring.slot(current), own_panels);
        current = current + 1 == Shape::kSlots ? 0 : current + 1;
      }
      if (panel != first || round != 0) block_barrier();  // until the previous round's sums have been read
      TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
        TESSERA_UNROLL for (uint32_t i = 0; i < 4 * Shape::kEights; ++i) {
          own_sums.store((i / 4 * 8 + i % 2) * Shape::kSumStride + 16 * p + i % 4 / 2 * 8,
                         sums[p][i / 4][i % 4]);
        }
      }
      block_barrier();
      const uint32_t count = chunks - round < Shape::kWarps ? chunks - round : Shape::kWarps;
      TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kOwnSums; ++i) {
        const uint32_t own = thread_index() + 32 * Shape::kWarps * i;
        const uint32_t place = own / Shape::kRows * Shape::kSumStride + own % Shape::kRows;
        for (uint32_t c = 0; c < count; ++c)
          totals[i] = add_rn(totals[i], all_sums[c * Shape::kWarpSums + place]);
      }
    }
    TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kOwnSums; ++i) {
      const uint32_t own = thread_index() + 32 * Shape::kWarps * i;
      if (own % Shape::kRows < 16 * own_panels)
        matrix.store(job, own / Shape::kRows, 16 * panel + own % Shape::kRows, totals[i]);
    }
  }
}

template <class Shape>
void launch_few(Queue& queue, const LinearJob& job) {
  const uint32_t panels = (job.weights.rows + 15) / 16;
  // Two blocks share a multiprocessor if its shared memory, 1 KiB more than the maximum of a block, is enough
  // for both.
  const bool two = 2 * (size_t{Shape::kSharedBytes} + 1024) <= queue.facts().shared_bytes + 1024;
  const auto most = static_cast<uint32_t>(queue.facts().processors) * (two ? 2 : 1);
  const FewJob few{job, panels < most ? panels : most};
  launch(queue, {few.blocks, 1, 1, 32 * Shape::kWarps, Shape::kSharedBytes, true}, &linear_half_few<Shape>,
         few);
}

}  // namespace tessera::cuda::halves
