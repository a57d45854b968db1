// Products with table weights for many tokens with wgmma, for sm_90a: tiles of 128 rows by 64 or 128 tokens.
//
// A block computes one tile in stages of 128 columns. Its first warpgroup fills a ring of stages: bulk copies
// bring codes, scales and offsets; activations pass through registers, because wgmma reads them from
// shared memory in another order than that of the rows. Each of the other two warpgroups has 64 rows: it
// expands its codes in registers as A while the tensor cores multiply the previous ones, waits for the sums
// of a group and adds them, scaled, to its totals. Meanwhile the tensor cores work for the other warpgroup.
//
// Each stage has two mbarriers. `full` completes when the announced bytes have landed and each warp of the
// first warpgroup has arrived, after its stores and a proxy fence. `free` completes when each warp of the
// other warpgroups has arrived, after waiting for its products.
#pragma once

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/formats/table_codes.h"
#include "backends/cuda/gemm/kernels/sm90_table_launch.h"
#include "backends/cuda/layout/swizzled_tile.h"

namespace tessera::cuda::tables {

template <class Table_, uint32_t kTokens_>
struct TableTile {
  using Table = Table_;
  static constexpr uint32_t kTokens = kTokens_;
  static constexpr uint32_t kPanels = 8;
  static constexpr uint32_t kGroupThreads = 128;
  static constexpr uint32_t kThreads = 3 * kGroupThreads;
  static constexpr uint32_t kValues = kTokens / 2;  // sums of a thread

  // A unit is what one set of A's registers holds: operands of four products, of 32 columns of bytes or 16 of
  // bfloat16.
  static constexpr uint32_t kProducts = 4;
  static constexpr uint32_t kStepProducts = Table::kElementBytes;
  static constexpr uint32_t kUnitSteps = kProducts / kStepProducts;
  static constexpr uint32_t kUnits = table_layout::kSteps / kUnitSteps;  // units of a stage: 1 or 2

  // A stage: for each unit 128 bytes of every token; codes, scales and offsets of each panel, nested ones as
  // bytes of both kinds and then d and dmin; and with offsets the sums of the tokens' activations over the
  // groups that end with the stage.
  static constexpr uint32_t kUnitBytes = kTokens * kSwizzledBytes;
  static constexpr uint32_t kInputBytes = kUnits * kUnitBytes;
  static constexpr uint32_t kScalesAt = table_layout::block_bytes(Table::kBits);
  static constexpr uint32_t kOffsetsAt = kScalesAt + table_layout::kSteps * table_layout::kGroupBytes;
  static constexpr uint32_t kPanelBytes = kOffsetsAt + table_layout::kSteps * table_layout::kGroupBytes;
  static constexpr uint32_t kSumBytes = table_layout::kSteps * kTokens * 4;
  static constexpr uint32_t kStageBytes = kInputBytes + kPanels * kPanelBytes + kSumBytes;
  static constexpr uint32_t kMostBytes = 227u << 10;     // on compute capability 9.0
  static constexpr uint32_t kFactorBytes = kTokens * 4;  // what each token's sums are multiplied by
  static constexpr uint32_t kMostStages =
      (kMostBytes - Table::kSharedBytes - kFactorBytes - 128) / kStageBytes;
  static constexpr uint32_t kStages = kMostStages < 6 ? kMostStages : 6;
  static constexpr uint32_t kPanelsAt = kStages * kInputBytes;
  static constexpr uint32_t kSumsAt = kPanelsAt + kStages * kPanels * kPanelBytes;
  static constexpr uint32_t kTableAt = kSumsAt + kStages * kSumBytes;
  static constexpr uint32_t kFactorsAt = kTableAt + Table::kSharedBytes;
  static constexpr uint32_t kBarriersAt = kFactorsAt + kFactorBytes;
  static constexpr uint32_t kSharedBytes = kBarriersAt + 2 * kStages * 8;
  static_assert(kStages >= 3 && kSharedBytes <= kMostBytes);
  static constexpr uint32_t kFullArrivals = kGroupThreads / 32 + 1;
  static constexpr uint32_t kFreeArrivals = 2 * kGroupThreads / 32;

  // A copying thread has 16 bytes of every kTokensApart-th token, of each unit, and kAhead stages in flight
  // in registers: up to 64 of those, or 32 for 64 tokens.
  static constexpr uint32_t kTokensApart = kGroupThreads * 16 / kSwizzledBytes;
  static constexpr uint32_t kRows = kTokens / kTokensApart;
  static constexpr uint32_t kAhead = kRows * kUnits > 8 ? 1 : 2;

  TESSERA_DEVICE static Shared<std::byte> inputs(uint32_t stage) {
    return Shared<std::byte>(shared_memory() + stage * kInputBytes);
  }
  TESSERA_DEVICE static Shared<std::byte> panel(uint32_t stage, uint32_t number) {
    return Shared<std::byte>(shared_memory() + kPanelsAt + (stage * kPanels + number) * kPanelBytes);
  }
  TESSERA_DEVICE static Shared<float> sums(uint32_t stage) {  // [groups][kTokens]
    return Shared<float>(shared_memory() + kSumsAt + stage * kSumBytes);
  }
  TESSERA_DEVICE static Shared<float> factors() { return Shared<float>(shared_memory() + kFactorsAt); }
  TESSERA_DEVICE static std::byte* full(uint32_t stage) { return shared_memory() + kBarriersAt + stage * 8; }
  TESSERA_DEVICE static std::byte* free(uint32_t stage) { return full(kStages + stage); }
};

// The tile of a block.
struct TableBlock {
  const TableView& weights;
  Global<const float> bias;
  uint32_t first_column;  // of y
  uint32_t first_panel;
  uint32_t panels;  // of the matrix
  uint32_t first_token;
  uint32_t stages;
};

// The first warpgroup.
template <class Tile>
class TableCopies {
 public:
  using Table = typename Tile::Table;

  TESSERA_DEVICE TableCopies(const TableLinearJob& job, const TableBlock& block, const Grouping& grouping)
      : job_(job), block_(block), grouping_(grouping), next_row_(Tile::kTokensApart * job.x.stride) {
    // Eight threads copy 128 bytes of a token.
    const uint32_t token = thread_index() / 8;
    const uint32_t chunk = thread_index() % 8;
    const uint32_t left = job.tokens - block.first_token;
    rows_ = token < left ? (left - token + Tile::kTokensApart - 1) / Tile::kTokensApart : 0;
    from_ = job.x.bytes(block.first_token + (token < left ? token : 0)) + 16 * chunk;
    to_ = swizzled_chunk(token, chunk / kPieces * kPieces) + chunk % kPieces * kPieceBytes;
    summed_ = block.weights.has_offsets() && thread_index() < Tile::kTokens;
    // Results beyond the last token are not stored.
    const uint32_t own = thread_index() < left ? thread_index() : 0;
    if (summed_) sums_ = Table::sums_of(job.x.bytes(block.first_token + own), job.x_columns);
  }

  TESSERA_DEVICE void run() {
    // The first codes are copied before the kernels that produce the activations have ended.
    const uint32_t early = block_.stages < Tile::kStages ? block_.stages : Tile::kStages;
    if (lane_index() == 0) {
      for (uint32_t stage = 0; stage < early; ++stage) copy_panels(stage, stage);
    }
    griddepcontrol_wait();
    // Stored before the other warpgroups read them, which wait for the first stage.
    if (thread_index() < Tile::kTokens) {
      const uint32_t left = job_.tokens - block_.first_token;
      const uint32_t own = thread_index() < left ? thread_index() : 0;
      Tile::factors().store(thread_index(), Table::factor(job_.x.bytes(block_.first_token + own),
                                                          job_.x_columns, block_.weights.table));
    }
    Stage coming[Tile::kAhead] = {};
    TESSERA_UNROLL for (uint32_t i = 0; i < Tile::kAhead; ++i) {
      if (i < block_.stages) load(coming[i]);
    }
    for (uint32_t first = 0; first < block_.stages; first += Tile::kAhead) {
      TESSERA_UNROLL for (uint32_t i = 0; i < Tile::kAhead; ++i) {
        const uint32_t number = first + i;
        if (number >= block_.stages) break;
        mbarrier_wait(Tile::free(place_.stage), place_.parity ^ 1);
        if (lane_index() == 0 && number >= early) copy_panels(number, place_.stage);
        store(coming[i]);
        if (summed_) add_sums(number, coming[i]);
        proxy_fence();
        warp_barrier();
        if (lane_index() == 0) mbarrier_arrive(Tile::full(place_.stage));
        place_.advance();
        if (number + Tile::kAhead < block_.stages) load(coming[i]);
      }
    }
  }

 private:
  // The pieces of 16 bytes of activations that go to different places: wgmma reads columns in the order in
  // which mma gets them from the lanes, which have 16 bytes each, or 8 with 8-bit activations.
  using InputPiece = typename Table::InputPiece;
  static constexpr uint32_t kPieceBytes = sizeof(InputPiece);
  static constexpr uint32_t kPieces = 16 / kPieceBytes;

  struct Stage {
    Words4 x[Tile::kRows][Tile::kUnits];  // zero beyond the last token
    typename Table::Sum sums[table_layout::kSteps];
  };

  // Loads the next stage.
  TESSERA_DEVICE void load(Stage& stage) {
    Global<std::byte> row = from_;
    TESSERA_UNROLL for (uint32_t i = 0; i < Tile::kRows; ++i) {
      if (i < rows_) {
        TESSERA_UNROLL for (uint32_t unit = 0; unit < Tile::kUnits; ++unit) stage.x[i][unit] =
            row.template as<const Words4>(unit * kSwizzledBytes)[0];
      }
      row = row + next_row_;
    }
    from_ = from_ + Tile::kUnits * kSwizzledBytes;
    if (!summed_) return;
    TESSERA_UNROLL for (uint32_t step = 0; step < table_layout::kSteps; ++step) stage.sums[step] =
        sums_[step];
    sums_ = sums_ + table_layout::kSteps;
  }

  // One lane of each warp copies two panels, whose addresses differ by constants and so take few
  // instructions. The first warp's announces the bytes of all panels; copies of other warps may begin before
  // that.
  TESSERA_DEVICE void copy_panels(uint32_t number, uint32_t stage) const {
    constexpr uint32_t kOwn = Tile::kPanels / (Tile::kGroupThreads / 32);
    const TableView& weights = block_.weights;
    const uint32_t left = block_.panels - block_.first_panel;
    const uint32_t count = left < Tile::kPanels ? left : Tile::kPanels;
    const uint32_t group_bytes = table_layout::kGroupBytes << grouping_.chunk_group_shift;
    // Nested: bytes of both kinds, then d and dmin.
    const uint32_t offset_bytes = Table::kNested          ? table_layout::kNestedFactorBytes
                                  : weights.has_offsets() ? group_bytes
                                                          : 0;
    std::byte* const barrier = Tile::full(stage);
    if (warp_index() == 0)
      mbarrier_arrive_expect(barrier, count * (Tile::kScalesAt + group_bytes + offset_bytes));
    // Weights are read once for each tile of tokens.
    const uint64_t policy = job_.tokens <= Tile::kTokens ? evict_first_policy() : evict_normal_policy();
    const uint32_t group = number * table_layout::kSteps >> grouping_.group_shift;
    const size_t scales = table_layout::scales_byte(Table::kBits, weights.columns, group);
    const size_t groups = block_.stages * table_layout::kSteps >> grouping_.group_shift;
    const size_t offsets = Table::kNested ? table_layout::nested_factors_byte(
                                                weights.columns, number / table_layout::kNestedBlocks)
                                          : scales + groups * table_layout::kGroupBytes;
    const uint32_t first = warp_index() * kOwn;
    Global<const std::byte> from = weights.panels + (block_.first_panel + first) * weights.panel_bytes;
    Shared<std::byte> to = Tile::panel(stage, first);
    for (uint32_t p = first; p < count && p < first + kOwn; ++p) {
      bulk_copy(to.address(), (from + size_t{number} * Tile::kScalesAt).address(), Tile::kScalesAt, barrier,
                policy);
      bulk_copy(to.template as<std::byte>(Tile::kScalesAt).address(), (from + scales).address(), group_bytes,
                barrier, policy);
      if (offset_bytes > 0)
        bulk_copy(to.template as<std::byte>(Tile::kOffsetsAt).address(), (from + offsets).address(),
                  offset_bytes, barrier, policy);
      from = from + weights.panel_bytes;
      to = to.template as<std::byte>(Tile::kPanelBytes);
    }
  }

  // Pieces go to chunks whose numbers differ in their last bits. That is the same for all tokens of the
  // thread, which are a multiple of eight apart. The lanes of a warp write to different banks.
  TESSERA_DEVICE void store(const Stage& stage) const {
    const Shared<std::byte> to = Tile::inputs(place_.stage);
    TESSERA_UNROLL for (uint32_t piece = 0; piece < kPieces; ++piece) {
      const Shared<std::byte> own = to.template as<std::byte>(to_ ^ 16 * piece);
      TESSERA_UNROLL for (uint32_t unit = 0; unit < Tile::kUnits; ++unit) {
        TESSERA_UNROLL for (uint32_t i = 0; i < Tile::kRows; ++i)
            own.template as<InputPiece>(unit * Tile::kUnitBytes + i * Tile::kTokensApart * kSwizzledBytes)
                .store(0, Table::input_piece(stage.x[i][unit], piece));
      }
    }
  }

  // Each thread adds the steps of one token and stores the sum of every group that ends in the stage.
  TESSERA_DEVICE void add_sums(uint32_t number, const Stage& stage) {
    const Shared<float> to = Tile::sums(place_.stage);
    TESSERA_UNROLL for (uint32_t step = 0; step < table_layout::kSteps; ++step) {
      const uint32_t before = number * table_layout::kSteps + step;
      if (grouping_.ends(before)) sum_ = 0;
      sum_ += stage.sums[step];
      if (grouping_.ends(before + 1))
        to.store(grouping_.slot_of(step) * Tile::kTokens + thread_index(), static_cast<float>(sum_));
    }
  }

  const TableLinearJob& job_;
  const TableBlock& block_;
  const Grouping& grouping_;
  size_t next_row_;  // bytes from one token of the thread to its next
  uint32_t rows_;    // number of its tokens that exist
  Global<std::byte> from_;
  uint32_t to_;
  bool summed_;
  Global<typename Table::Sum> sums_;
  typename Table::Sum sum_ = 0;
  RingPlace<Tile::kStages> place_;
};

// A warp of the other two warpgroups, which computes one panel of the tile.
template <class Tile>
class TableProducts {
 public:
  using Table = typename Tile::Table;
  using Sum = typename Table::Sum;

  TESSERA_DEVICE TableProducts(const TableBlock& block, const Grouping& grouping, const Table& table)
      : block_(block),
        grouping_(grouping),
        table_(table),
        own_(warp_index() - Tile::kGroupThreads / 32),
        exists_(block.first_panel + own_ < block.panels) {}

  TESSERA_DEVICE void run(const TableLinearJob& job) {
    uint32_t even[Tile::kProducts][4] = {};
    uint32_t odd[Tile::kProducts][4] = {};
    wgmma_done(sums_);
    expand<0>(even);
    const uint32_t units = block_.stages * Tile::kUnits;
    for (uint32_t unit = 0; unit < units; unit += 2) {
      add_unit<0>(even, odd, unit, unit + 1 < units);
      if (unit + 1 < units) add_unit<Tile::kUnits - 1>(odd, even, unit + 1, unit + 2 < units);
    }
    if (exists_) finish(job);
  }

 private:
  using Operands = uint32_t[Tile::kProducts][4];

  // Expands the codes of a unit of the stage at next_.
  template <uint32_t kUnit>
  TESSERA_DEVICE void expand(Operands& a) {
    if (kUnit == 0) mbarrier_wait(Tile::full(next_.stage), next_.parity);
    if (exists_) {
      uint32_t stored[2 * Table::kBits];
      load_words<Table::kBits>(Tile::panel(next_.stage, own_), stored);
      TESSERA_UNROLL for (uint32_t i = 0; i < Tile::kUnitSteps; ++i) {
        const uint32_t word = 2 * (kUnit * Tile::kUnitSteps + i);
        const auto operand =
            table_.operand(row_codes<Table::kBits>(stored, word), row_codes<Table::kBits>(stored, word + 1));
        TESSERA_UNROLL for (uint32_t j = 0; j < 4 * Tile::kStepProducts; ++j)
            a[i * Tile::kStepProducts + j / 4][j % 4] = operand.a[j / 4][j % 4];
      }
    }
    if (kUnit + 1 == Tile::kUnits) next_.advance();
  }

  // Multiplies a unit, group by group, and meanwhile expands the next one.
  template <uint32_t kUnit>
  TESSERA_DEVICE void add_unit(Operands& a, Operands& other, uint32_t unit, bool more) {
    const uint32_t before = unit * Tile::kUnitSteps;
    const uint32_t span =
        grouping_.group_steps() < Tile::kUnitSteps ? grouping_.group_steps() : Tile::kUnitSteps;
    const uint64_t b =
        swizzled_descriptor(shared_address(Tile::inputs(place_.stage).address()) + kUnit * Tile::kUnitBytes);
    for (uint32_t step = 0; step < Tile::kUnitSteps; step += span) {
      const uint64_t own_b = advanced(b, step * Tile::kStepProducts);
      const bool accumulate = !grouping_.ends(before + step);
      if (span == Tile::kUnitSteps) {
        multiply_steps<Tile::kUnitSteps>(a, own_b, accumulate);
      } else if (Tile::kUnitSteps > 2 && span == 2) {
        multiply_steps<2>(a, own_b, accumulate);
      } else {
        multiply_steps<1>(a, own_b, accumulate);
      }
      const bool last = step + span == Tile::kUnitSteps;
      if (last && more) expand<(kUnit + 1) % Tile::kUnits>(other);
      wgmma_wait<0>();
      wgmma_done(sums_);
      if (grouping_.ends(before + step + span)) end_group(grouping_.slot_of(kUnit * Tile::kUnitSteps + step));
      if (!last) shift(a, span * Tile::kStepProducts);
    }
    if (kUnit + 1 < Tile::kUnits) return;
    warp_barrier();
    if (lane_index() == 0) mbarrier_arrive(Tile::free(place_.stage));
    place_.advance();
  }

  // One group of products, without branches between them.
  template <uint32_t kSteps>
  TESSERA_DEVICE void multiply_steps(const Operands& a, uint64_t b, bool accumulate) {
    wgmma_fence();
    TESSERA_UNROLL for (uint32_t i = 0; i < kSteps * Tile::kStepProducts; ++i)
        Table::multiply_tile(sums_, a[i], advanced(b, i), accumulate || i > 0);
    wgmma_commit();
  }

  // Moves the remaining operands to the front, because registers cannot be indexed at run time.
  TESSERA_DEVICE static void shift(Operands& a, uint32_t count) {
    TESSERA_UNROLL for (uint32_t i = 0; i + 1 < Tile::kProducts; ++i) {
      TESSERA_UNROLL for (uint32_t j = 0; j < 4; ++j) a[i][j] =
          count == 1 || i + 2 >= Tile::kProducts ? a[i + 1][j] : a[i + 2][j];
    }
  }

  // Scales and offsets of a group of the stage.
  TESSERA_DEVICE Levels levels(uint32_t slot) const {
    const Shared<std::byte> panel = Tile::panel(place_.stage, own_);
    const uint32_t word = slot * (table_layout::kGroupBytes / 4) + lane_index() / 4;
    const uint32_t scales = panel.template as<uint32_t>(Tile::kScalesAt)[word];
    const Shared<uint32_t> offsets = panel.template as<uint32_t>(Tile::kOffsetsAt);
    if constexpr (Table::kNested)
      return nested_levels(scales, offsets[lane_index() / 4], offsets[8 + lane_index() / 4]);
    Levels levels = {{row_scale(scales, false), row_scale(scales, true)}, {0, 0}};
    if (block_.weights.has_offsets()) {
      levels.offset[0] = row_scale(offsets[word], false);
      levels.offset[1] = row_scale(offsets[word], true);
    }
    return levels;
  }

  // Adds a group to acc.
  TESSERA_DEVICE void end_group(uint32_t slot) {
    if (!exists_) return;
    const Levels own_levels = levels(slot);
    const GroupOffset kind = block_.weights.offset;
    if (kind == GroupOffset::none) {
      TESSERA_UNROLL for (uint32_t i = 0; i < Tile::kValues; ++i) acc_[i] =
          multiply_add(own_levels.scale[i / 2 % 2], Table::float_of(sums_[i]), acc_[i]);
      return;
    }
    const Shared<Words2> inputs =
        Tile::sums(place_.stage).template as<Words2>(4 * (slot * Tile::kTokens + 2 * (lane_index() % 4)));
    TESSERA_UNROLL for (uint32_t eight = 0; eight < Tile::kTokens / 8; ++eight) {
      const Words2 words = inputs[4 * eight];
      const float own[2] = {bits_float(words.x), bits_float(words.y)};
      TESSERA_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        acc_[4 * eight + i] = add_group(kind, own_levels.scale[i / 2], own_levels.offset[i / 2], own[i % 2],
                                        Table::float_of(sums_[4 * eight + i]), acc_[4 * eight + i]);
      }
    }
  }

  TESSERA_DEVICE void finish(const TableLinearJob& job) const {
    const uint32_t first_row = 16 * (block_.first_panel + own_) + lane_index() / 4;
    float bias[2] = {0, 0};
    for (uint32_t lower = 0; lower < 2; ++lower) {
      if (!block_.bias.null() && first_row + 8 * lower < block_.weights.rows)
        bias[lower] = block_.bias[first_row + 8 * lower];
    }
    TESSERA_UNROLL for (uint32_t i = 0; i < Tile::kValues; i += 4) {
      for (uint32_t side = 0; side < 2; ++side) {
        const uint32_t token = block_.first_token + 2 * i + 2 * (lane_index() % 4) + side;
        if (token >= job.tokens) continue;
        const float factor = Tile::factors()[token - block_.first_token];
        for (uint32_t lower = 0; lower < 2; ++lower) {
          const uint32_t row = first_row + 8 * lower;
          if (row >= block_.weights.rows) continue;
          float result = multiply_rn(acc_[i + 2 * lower + side], factor);
          if (!block_.bias.null()) result = add_rn(result, bias[lower]);
          job.y.floats(token).store(block_.first_column + row, result);
        }
      }
    }
  }

  const TableBlock& block_;
  const Grouping& grouping_;
  const Table& table_;
  uint32_t own_;
  bool exists_;
  Sum sums_[Tile::kValues] = {};   // of the current group
  float acc_[Tile::kValues] = {};  // of all earlier groups
  RingPlace<Tile::kStages> place_;
  RingPlace<Tile::kStages> next_;
};

template <class Table, uint32_t kTokens>
TESSERA_KERNEL TESSERA_BLOCK_OF((TableTile<Table, kTokens>::kThreads)) void table_tiles(
    TableLinearJobs jobs) {
  if constexpr (kHasWarpgroups) {
    griddepcontrol_launch_dependents();
    using Tile = TableTile<Table, kTokens>;
    const uint32_t which = jobs.which(block_x() * Tile::kPanels);
    const TableLinearJob& job = jobs.items[which];
    const TableBlock block{job.weights,
                           job.bias,
                           job.first_column,
                           block_x() * Tile::kPanels - jobs.first_panel[which],
                           (job.weights.rows + 15) / 16,
                           block_y() * kTokens,
                           job.weights.columns / table_layout::kBlockColumns};
    const Grouping grouping(block.weights.group);
    const Table table(block.weights.entries, Shared<std::byte>(shared_memory() + Tile::kTableAt));
    if (thread_index() == 0) {
      for (uint32_t i = 0; i < Tile::kStages; ++i) {
        mbarrier_init(Tile::full(i), Tile::kFullArrivals);
        mbarrier_init(Tile::free(i), Tile::kFreeArrivals);
      }
      mbarrier_init_fence();
    }
    block_barrier();
    if (thread_index() < Tile::kGroupThreads) {
      shrink_registers<120>();
      TableCopies<Tile>(job, block, grouping).run();
    } else {
      grow_registers<192>();
      griddepcontrol_wait();
      TableProducts<Tile>(block, grouping, table).run(job);
    }
  }
}

template <class Table, uint32_t kTokens>
void launch_tiles(Queue& queue, const TableLinearJobs& jobs) {
  using Tile = TableTile<Table, kTokens>;
  launch(queue,
         {jobs.blocks(Tile::kPanels), (jobs.items[0].tokens + kTokens - 1) / kTokens, 1, Tile::kThreads,
          Tile::kSharedBytes, true},
         &table_tiles<Table, kTokens>, jobs);
}

}  // namespace tessera::cuda::tables
