// Products with table weights for few tokens, sm_80 and later. A block computes one or two panels of 16 rows
// for 8, 16 or 32 tokens; each of its eight warps has every eighth chunk of columns and a ring of its own in
// shared memory, with several blocks of codes in flight. A single token uses mma too, which adds the columns
// of a step within the tensor core: dp4a would need shuffles at the end of every group.
//
// A chunk is a block of 128 columns, or a group of 256. After every round of eight chunks the sums of their
// groups are in shared memory and are added in order, so the result is the same as with any other kernel.
#pragma once

#include <type_traits>

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/formats/table_codes.h"

namespace tessera::cuda::tables {

inline constexpr uint32_t kFewWarps = 8;

// A block computes kPanels panels of 16 rows for 8 kEights tokens. kWide: groups have 128 columns or more, so
// that none ends inside a block of columns.
template <class Table_, bool kWide_, uint32_t kPanels_, uint32_t kEights_>
struct FewShape {
  using Table = Table_;
  static constexpr bool kWide = kWide_;
  static constexpr uint32_t kPanels = kPanels_;
  static constexpr uint32_t kEights = kEights_;
  static constexpr uint32_t kRows = 16 * kPanels;
  static constexpr uint32_t kTokens = 8 * kEights;
  static constexpr uint32_t kThreads = 32 * kFewWarps;
  // Blocks of codes in flight for each warp: at least 3 KiB of each panel, 48 KiB for a multiprocessor with
  // 16 warps.
  static constexpr uint32_t kStages = (12 + Table::kBits - 1) / Table::kBits;
  static constexpr uint32_t kBlockBytes = table_layout::block_bytes(Table::kBits);
  static constexpr uint32_t kStageBytes = kPanels * kBlockBytes;
  static constexpr uint32_t kRingBytes = kStages * kStageBytes;  // of a warp
  static constexpr uint32_t kTableAt = kFewWarps * kRingBytes;
  static constexpr uint32_t kSlotsAt = kTableAt + Table::kSharedBytes;

  // A slot is what a warp stores for a group: sums [tokens][rows], with four floats of padding a token so
  // that lanes write to different banks; scales and offsets in the order of the panels, as f16, or f32 where
  // they are products; and sums of the activations [tokens].
  using Level = std::conditional_t<Table::kNested, float, uint16_t>;
  static constexpr uint32_t kLevelBytes = kRows * sizeof(Level);
  static constexpr uint32_t kSlotTokenFloats = kRows + 4;
  static constexpr uint32_t kSlotScales = kTokens * kSlotTokenFloats * 4;
  static constexpr uint32_t kSlotOffsets = kSlotScales + kLevelBytes;
  static constexpr uint32_t kSlotInputSums = kSlotOffsets + kLevelBytes;
  static constexpr uint32_t kSlotBytes = kSlotInputSums + kTokens * 4;
  static constexpr uint32_t kValues = (kRows * kTokens + kThreads - 1) / kThreads;  // results of a thread

  static uint32_t shared_bytes(const Grouping& grouping) {
    return kSlotsAt + (kFewWarps << grouping.chunk_group_shift) * kSlotBytes;
  }
};

// The work of one warp: every eighth chunk, block by block.
template <class Shape>
class FewWarp {
 public:
  using Table = typename Shape::Table;
  static constexpr uint32_t kBits = Table::kBits;
  using Sums = typename Table::Sum[Shape::kPanels][Shape::kEights][4];
  using Codes = uint32_t[Shape::kPanels][2 * kBits];

  // What a block needs besides its codes, loaded one block ahead.
  struct Inputs {
    typename Table::Inputs x[Shape::kEights][table_layout::kSteps];
    uint32_t scale[Shape::kPanels];  // nested: bytes of both kinds
    uint32_t offset[Shape::kPanels];
    uint32_t factors[Table::kNested ? Shape::kPanels : 1][2];  // nested: d and dmin
  };

  TESSERA_DEVICE FewWarp(const TableLinearJob& job, uint32_t first_panel, const Grouping& grouping)
      : job_(job),
        grouping_(grouping),
        blocks_(job.weights.columns / table_layout::kBlockColumns),
        groups_(blocks_ * table_layout::kSteps >> grouping.group_shift),
        last_part_(grouping.chunk_blocks() - 1),
        policy_(job.tokens <= Shape::kTokens ? evict_first_policy() : evict_normal_policy()),
        ring_(shared_memory() + warp_index() * Shape::kRingBytes) {
    // Panels and tokens beyond the last repeat others; their results are not used.
    const uint32_t panels = (job.weights.rows + 15) / 16;
    TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
      const uint32_t own = first_panel + p;
      panels_[p] = job.weights.panels + (own < panels ? own : panels - 1) * job.weights.panel_bytes;
      scales_[p] =
          panels_[p].template as<const uint32_t>(table_layout::scales_byte(kBits, job.weights.columns, 0)) +
          lane_index();
    }
    TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e) {
      tokens_[e] = Shape::kTokens * block_y() + 8 * e + lane_index() / 4;
      x_[e] = job.x.bytes(tokens_[e] < job.tokens ? tokens_[e] : 0) +
              8 * Table::kElementBytes * (lane_index() % 4);
    }
    skip_inputs(first_block());
  }

  TESSERA_DEVICE bool has(uint32_t block) const { return block < blocks_; }
  TESSERA_DEVICE uint32_t first_block() const { return warp_index() << grouping_.chunk_shift; }
  // The warp's next block: the next of its chunk, or the first of its next chunk.
  TESSERA_DEVICE uint32_t after(uint32_t block) const {
    const uint32_t skipped = (kFewWarps - 1) << grouping_.chunk_shift;
    return block + 1 + ((block & last_part_) == last_part_ ? skipped : 0);
  }

  // Starts the copies of a block's codes as one group, an empty group beyond the last block.
  TESSERA_DEVICE void fetch(uint32_t block, uint32_t stage_byte) const {
    if (has(block)) {
      TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
        const Global<const std::byte> from =
            panels_[p] + (size_t{block} * Shape::kBlockBytes + 16 * lane_index());
        const Shared<std::byte> to =
            ring_.template as<std::byte>(stage_byte + p * Shape::kBlockBytes + 16 * lane_index());
        TESSERA_UNROLL
        for (uint32_t byte = 0; byte < Shape::kBlockBytes; byte += 512) {
          if (byte + 16 * lane_index() >= Shape::kBlockBytes) continue;
          std::byte* const own = to.template as<std::byte>(byte).address();
          if constexpr (Shape::kEights < 4) {
            cp_async_16_hinted(own, (from + byte).address(), policy_);
          } else {
            cp_async_16(own, (from + byte).address());  // too few registers for the hint
          }
        }
      }
    }
    cp_async_commit();
  }

  // Advances the pointers to activations by `blocks` blocks.
  TESSERA_DEVICE void skip_inputs(uint32_t blocks) {
    TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e) x_[e] =
        x_[e] + size_t{blocks} * (table_layout::kBlockColumns * Table::kElementBytes);
  }

  // Loads activations, scales and offsets of `block`, which the pointers must have reached.
  TESSERA_DEVICE void load(uint32_t block, Inputs& inputs) const {
    TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e) {
      const auto x = x_[e].template as<typename Table::Inputs>();
      TESSERA_UNROLL
      for (uint32_t step = 0; step < table_layout::kSteps; ++step) inputs.x[e][step] = x[4 * step];
    }
    if (lane_index() >= 8 * grouping_.chunk_groups()) return;
    const uint32_t group = block * table_layout::kSteps >> grouping_.group_shift;
    TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
      inputs.scale[p] = scales_[p][size_t{group} * 8];
      if constexpr (Table::kNested) {
        const size_t factors =
            table_layout::nested_factors_byte(job_.weights.columns, block / table_layout::kNestedBlocks);
        const auto own = panels_[p].template as<const uint32_t>(factors) + lane_index() % 8;
        inputs.factors[p][0] = own[0];
        inputs.factors[p][1] = own[8];
      } else if (job_.weights.has_offsets()) {
        inputs.offset[p] = scales_[p][size_t{groups_ + group} * 8];
      }
    }
  }

  // Waits for the codes of a block and reads them from the ring. Needs the barriers because with 3 bits a
  // lane reads what other lanes copied, and because the next copy overwrites the codes.
  TESSERA_DEVICE void read_codes(uint32_t stage_byte, Codes& stored) const {
    cp_async_wait<Shape::kStages - 1>();
    warp_barrier();
    TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p)
        load_words<kBits>(ring_.template as<std::byte>(stage_byte + p * Shape::kBlockBytes), stored[p]);
    warp_barrier();
  }

  // Adds the products of a block to d. The sums of groups that end are stored in the chunk's slots, and d
  // restarts at zero.
  TESSERA_DEVICE void multiply(uint32_t block, const Table& table, const Codes& stored, const Inputs& inputs,
                               Sums& d, Shared<std::byte> slots) const {
    const uint32_t before = (block & last_part_) * table_layout::kSteps;
    TESSERA_UNROLL
    for (uint32_t step = 0; step < table_layout::kSteps; ++step) {
      TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
        const auto operand =
            table.operand(row_codes<kBits>(stored[p], 2 * step), row_codes<kBits>(stored[p], 2 * step + 1));
        TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e)
            Table::multiply(d[p][e], operand, inputs.x[e][step]);
      }
      if (Shape::kWide && step + 1 < table_layout::kSteps) continue;
      if (!grouping_.ends(before + step + 1)) continue;
      store_sums(slots.template as<std::byte>(Shape::kWide ? 0 : grouping_.slot_of(step) * Shape::kSlotBytes),
                 d);
    }
    if ((block & last_part_) == last_part_) store_group_parameters(block, inputs, slots);
  }

 private:
  TESSERA_DEVICE static void store_sums(Shared<std::byte> slot, Sums& d) {
    TESSERA_UNROLL for (uint32_t e = 0; e < Shape::kEights; ++e) {
      const uint32_t token = 8 * e + 2 * (lane_index() % 4);
      const Shared<float> sums =
          slot.template as<float>(4 * (token * Shape::kSlotTokenFloats + lane_index() / 4));
      TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
        TESSERA_UNROLL for (uint32_t r = 0; r < 4; ++r) {
          sums.store(r % 2 * Shape::kSlotTokenFloats + 16 * p + 8 * (r / 2), static_cast<float>(d[p][e][r]));
          d[p][e][r] = 0;
        }
      }
    }
  }

  // Stores the scales, offsets and sums of activations of the groups that end with a block.
  TESSERA_DEVICE void store_group_parameters(uint32_t block, const Inputs& inputs,
                                             Shared<std::byte> slots) const {
    const uint32_t lane = lane_index();
    if (lane < 8 * grouping_.chunk_groups()) {
      const Shared<std::byte> slot = slots.template as<std::byte>(lane / 8 * Shape::kSlotBytes);
      TESSERA_UNROLL for (uint32_t p = 0; p < Shape::kPanels; ++p) {
        if constexpr (Table::kNested) {
          const Levels levels = nested_levels(inputs.scale[p], inputs.factors[p][0], inputs.factors[p][1]);
          TESSERA_UNROLL for (uint32_t lower = 0; lower < 2; ++lower) {
            const uint32_t at = 16 * p + 2 * (lane % 8) + lower;
            slot.template as<float>(Shape::kSlotScales).store(at, levels.scale[lower]);
            slot.template as<float>(Shape::kSlotOffsets).store(at, levels.offset[lower]);
          }
          continue;
        }
        slot.template as<uint32_t>(Shape::kSlotScales).store(8 * p + lane % 8, inputs.scale[p]);
        if (job_.weights.has_offsets())
          slot.template as<uint32_t>(Shape::kSlotOffsets).store(8 * p + lane % 8, inputs.offset[p]);
      }
    }
    if (!job_.weights.has_offsets() || lane % 4 >= grouping_.chunk_groups()) return;
    const uint32_t end = (block + 1) * table_layout::kSteps;
    const uint32_t left = grouping_.chunk_groups() - lane % 4;
    for (uint32_t e = 0; e < Shape::kEights; ++e) {
      if (tokens_[e] >= job_.tokens) return;
      slots.template as<float>(lane % 4 * Shape::kSlotBytes + Shape::kSlotInputSums)
          .store(8 * e + lane / 4,
                 Table::sum_of(job_.x.bytes(tokens_[e]), job_.x_columns,
                               end - (left << grouping_.group_shift), grouping_.group_steps()));
    }
  }

  const TableLinearJob& job_;
  const Grouping& grouping_;
  uint32_t blocks_;
  uint32_t groups_;
  uint32_t last_part_;  // index of the last block in a chunk
  Global<const std::byte> panels_[Shape::kPanels];
  Global<const uint32_t> scales_[Shape::kPanels];
  uint32_t tokens_[Shape::kEights];  // tokens whose activations the lane loads
  Global<std::byte> x_[Shape::kEights];
  uint64_t policy_;
  Shared<std::byte> ring_;
};

TESSERA_DEVICE float stored_level(float level) { return level; }
TESSERA_DEVICE float stored_level(uint16_t level) { return half_to_float(level); }

// Adds the first `groups` slots to the sum of (row, token) and returns it.
template <class Shape>
TESSERA_DEVICE float add_groups(Shared<std::byte> slots, uint32_t groups, uint32_t row, uint32_t token,
                                GroupOffset kind, float sum) {
  using Level = typename Shape::Level;
  const uint32_t half = row / 16 * 16 + table_layout::half_of_row(row % 16);
  for (uint32_t i = 0; i < groups; ++i) {
    const Shared<std::byte> slot = slots.as<std::byte>(i * Shape::kSlotBytes);
    const float d = slot.as<float>()[token * Shape::kSlotTokenFloats + row];
    const float scale = stored_level(slot.as<Level>(Shape::kSlotScales)[half]);
    float offset = 0;
    float inputs = 0;
    if (kind != GroupOffset::none) {
      offset = stored_level(slot.as<Level>(Shape::kSlotOffsets)[half]);
      inputs = slot.as<float>(Shape::kSlotInputSums)[token];
    }
    sum = add_group(kind, scale, offset, inputs, d, sum);
  }
  return sum;
}

template <class Shape>
TESSERA_KERNEL TESSERA_BLOCK_OF(Shape::kThreads) void table_few_tokens(TableLinearJobs jobs) {
  griddepcontrol_launch_dependents();
  const uint32_t which = jobs.which(Shape::kPanels * block_x());
  const TableLinearJob& job = jobs.items[which];
  const uint32_t first_panel = Shape::kPanels * block_x() - jobs.first_panel[which];
  using Table = typename Shape::Table;
  using Warp = FewWarp<Shape>;
  const Grouping grouping(job.weights.group);
  Warp warp(job, first_panel, grouping);
  const Shared<std::byte> space(shared_memory());
  const Shared<std::byte> all_slots = space.as<std::byte>(Shape::kSlotsAt);
  const Shared<std::byte> slots =
      all_slots.as<std::byte>((warp_index() << grouping.chunk_group_shift) * Shape::kSlotBytes);
  const uint32_t groups = job.weights.columns / table_layout::kStepColumns >> grouping.group_shift;
  const uint32_t round_groups = kFewWarps << grouping.chunk_group_shift;
  // A thread has one row of the results, and tokens kTokensApart apart.
  constexpr uint32_t kTokensApart = Shape::kThreads / Shape::kRows;
  const uint32_t row = thread_index() % Shape::kRows;
  const uint32_t first_token = thread_index() / Shape::kRows;
  const auto adds = [&](uint32_t token) {
    return token < Shape::kTokens && Shape::kTokens * block_y() + token < job.tokens;
  };

  uint32_t block = warp.first_block();
  uint32_t coming = block;  // the next block to fetch
  for (uint32_t stage = 0; stage < Shape::kRingBytes; stage += Shape::kStageBytes) {
    warp.fetch(coming, stage);
    coming = warp.after(coming);
  }
  const Table table(job.weights.entries, space.as<std::byte>(Shape::kTableAt));  // meanwhile
  griddepcontrol_wait();
  if (Table::kSharedBytes > 0) block_barrier();
  typename Warp::Inputs next{};
  if (warp.has(block)) warp.load(block, next);
  // Loaded here because the first codes are still in flight.
  const uint32_t n = 16 * first_panel + row;
  const float bias = !job.bias.null() && n < job.weights.rows ? job.bias[n] : 0.0f;
  float factors[Shape::kValues] = {};
  TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kValues; ++i) {
    const uint32_t token = first_token + i * kTokensApart;
    if (adds(token))
      factors[i] =
          Table::factor(job.x.bytes(Shape::kTokens * block_y() + token), job.x_columns, job.weights.table);
  }
  typename Warp::Sums d = {};
  float sums[Shape::kValues] = {};
  uint32_t stage = 0;
  for (uint32_t first = 0; first < groups; first += round_groups) {
    for (uint32_t part = 0; part < grouping.chunk_blocks() && warp.has(block); ++part) {
      const auto inputs = next;
      typename Warp::Codes stored;
      warp.read_codes(stage, stored);
      warp.fetch(coming, stage);
      coming = warp.after(coming);
      stage = stage + Shape::kStageBytes == Shape::kRingBytes ? 0 : stage + Shape::kStageBytes;
      const uint32_t current = block;
      block = warp.after(block);
      warp.skip_inputs(block - current);
      if (warp.has(block)) warp.load(block, next);
      warp.multiply(current, table, stored, inputs, d, slots);
    }
    block_barrier();
    const uint32_t left = groups - first;
    TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kValues; ++i) {
      const uint32_t token = first_token + i * kTokensApart;
      if (adds(token))
        sums[i] = add_groups<Shape>(all_slots, left < round_groups ? left : round_groups, row, token,
                                    job.weights.offset, sums[i]);
    }
    block_barrier();  // before the next round overwrites the slots
  }
  if (n >= job.weights.rows) return;
  TESSERA_UNROLL for (uint32_t i = 0; i < Shape::kValues; ++i) {
    const uint32_t token = first_token + i * kTokensApart;
    if (!adds(token)) continue;
    float result = multiply_rn(sums[i], factors[i]);
    if (!job.bias.null()) result = add_rn(result, bias);
    job.y.floats(Shape::kTokens * block_y() + token).store(job.first_column + n, result);
  }
}

template <class Shape>
void launch_few_tokens(Queue& queue, const TableLinearJobs& jobs) {
  LaunchShape shape;
  shape.grid_x = jobs.blocks(Shape::kPanels);
  shape.grid_y = (jobs.items[0].tokens + Shape::kTokens - 1) / Shape::kTokens;
  shape.threads = Shape::kThreads;
  shape.shared_bytes = Shape::shared_bytes(Grouping(jobs.items[0].weights.group));
  // A multiprocessor has room for two of the small blocks: if there are few of them, they must not all begin
  // on the first multiprocessors that become free.
  shape.early = size_t{shape.grid_x} * shape.grid_y > queue.facts().processors;
  launch(queue, shape, &table_few_tokens<Shape>, jobs);
}

}  // namespace tessera::cuda::tables
