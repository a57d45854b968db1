// Products with table weights for up to 16 tokens, sm_80 and later: a block for each panel of 16 rows and 8
// tokens, its eight warps take turns at chunks of columns. Each warp keeps several blocks of codes on their
// way into a ring of its own in shared memory. One token too is a column of mma, which adds the columns of a
// step within the tensor core: with dp4a every group would end in shuffles.
//
// A chunk is a block of 128 columns, or a group of 256. After every round of eight chunks the sums of their
// groups lie in shared memory and are added up in order, so the result is the same as with any other kernel.
#pragma once

#include "backends/cuda/gemm/table_codes.h"
#include "backends/cuda/launch.h"

namespace tessera::cuda::tables {

inline constexpr uint32_t kFewTokens = 8;
inline constexpr uint32_t kFewWarps = 8;

// Blocks of codes on their way to a warp: 3 KiB of it, so 48 KiB a processor with 16 of its warps.
constexpr uint32_t few_stages(uint32_t bits) { return bits == 4 ? 3 : bits == 3 ? 4 : 6; }
constexpr uint32_t few_ring_bytes(uint32_t bits) {
  return kFewWarps * few_stages(bits) * table_layout::block_bytes(bits);
}

// What a warp hands over for a group: sums [8 tokens][16 rows], rows of 20 floats so that lanes write to
// different banks; scales and zero points as the panel has them; and sums of the activations [8 tokens].
inline constexpr uint32_t kSlotTokenFloats = 20;
inline constexpr uint32_t kSlotScales = kFewTokens * kSlotTokenFloats * 4;
inline constexpr uint32_t kSlotZeros = kSlotScales + table_layout::kGroupBytes;
inline constexpr uint32_t kSlotInputSums = kSlotZeros + table_layout::kGroupBytes;
inline constexpr uint32_t kSlotBytes = kSlotInputSums + kFewTokens * 4;

// The part of one warp: every eighth chunk, block by block. With kWide groups have 128 columns or more, so
// that none ends within a block.
template <class Table, bool kWide>
class FewWarp {
 public:
  static constexpr uint32_t kBits = Table::kBits;
  static constexpr uint32_t kStages = few_stages(kBits);
  static constexpr uint32_t kBlockBytes = table_layout::block_bytes(kBits);

  // What a block needs beside its codes, asked for one block ahead.
  struct Inputs {
    typename Table::Inputs x[table_layout::kSteps];
    uint32_t scale;
    uint32_t zero;
  };

  TESSERA_DEVICE FewWarp(const TableLinearJob& job, const Grouping& grouping)
      : job_(job),
        grouping_(grouping),
        blocks_(job.weights.columns / table_layout::kBlockColumns),
        groups_(blocks_ * table_layout::kSteps >> grouping.group_shift),
        last_part_(grouping.chunk_blocks() - 1),
        token_(kFewTokens * block_y() + lane_index() / 4),
        panel_(job.weights.panels + block_x() * job.weights.panel_bytes),
        scales_(panel_.template as<const uint32_t>(table_layout::scales_byte(kBits, job.weights.columns, 0)) +
                lane_index()),
        // Lanes of tokens that do not exist read another token's row; nobody reads what comes of it.
        x_(job.x.bytes(token_ < job.tokens ? token_ : 0) + 8 * Table::kElementBytes * (lane_index() % 4)),
        ring_(shared_memory() + warp_index() * kStages * kBlockBytes) {}

  TESSERA_DEVICE bool has(uint32_t block) const { return block < blocks_; }
  TESSERA_DEVICE uint32_t first_block() const { return warp_index() << grouping_.chunk_shift; }
  // The warp's block after this one: the other of its chunk, or the first of its next.
  TESSERA_DEVICE uint32_t after(uint32_t block) const {
    const uint32_t skipped = (kFewWarps - 1) << grouping_.chunk_shift;
    return block + 1 + ((block & last_part_) == last_part_ ? skipped : 0);
  }

  // Starts the copy of a block's codes; one group of copies whether there is such a block or not.
  TESSERA_DEVICE void fetch(uint32_t block, uint32_t stage_byte) const {
    if (has(block)) {
      const Global<const std::byte> from = panel_ + (size_t{block} * kBlockBytes + 16 * lane_index());
      const Shared<std::byte> to = ring_.template as<std::byte>(stage_byte + 16 * lane_index());
      TESSERA_UNROLL
      for (uint32_t byte = 0; byte < kBlockBytes; byte += 512) {
        if (byte + 16 * lane_index() < kBlockBytes)
          cp_async_16(to.template as<std::byte>(byte).address(), (from + byte).address());
      }
    }
    cp_async_commit();
  }

  TESSERA_DEVICE void load(uint32_t block, Inputs& inputs) const {
    const auto x = x_.template as<typename Table::Inputs>(
        size_t{block} * (table_layout::kBlockColumns * Table::kElementBytes));
    TESSERA_UNROLL
    for (uint32_t step = 0; step < table_layout::kSteps; ++step) inputs.x[step] = x[4 * step];
    if (lane_index() >= 8 * grouping_.chunk_groups()) return;
    const uint32_t group = block * table_layout::kSteps >> grouping_.group_shift;
    inputs.scale = scales_[size_t{group} * 8];
    if (job_.weights.zero_points) inputs.zero = scales_[size_t{groups_ + group} * 8];
  }

  // Waits for the codes of a block and takes them out of the ring. Barriers, because with 3 bits a lane's
  // words came by other lanes' copies and because the next copy overwrites them.
  TESSERA_DEVICE void take(uint32_t stage_byte, uint32_t (&stored)[2 * kBits]) const {
    cp_async_wait<kStages - 1>();
    warp_barrier();
    load_words<kBits>(ring_.template as<std::byte>(stage_byte), stored);
    warp_barrier();
  }

  // Adds a block to d; groups that end go to the chunk's slots and leave d at zero.
  TESSERA_DEVICE void multiply(uint32_t block, const Table& table, const uint32_t (&stored)[2 * kBits],
                               const Inputs& inputs, typename Table::Sum (&d)[4],
                               Shared<std::byte> slots) const {
    const Shared<float> own =
        slots.template as<float>(4 * (2 * (lane_index() % 4) * kSlotTokenFloats + lane_index() / 4));
    const uint32_t before = (block & last_part_) * table_layout::kSteps;
    TESSERA_UNROLL
    for (uint32_t step = 0; step < table_layout::kSteps; ++step) {
      const auto operand =
          table.operand(nibble_word<kBits>(stored, 2 * step), nibble_word<kBits>(stored, 2 * step + 1));
      Table::multiply(d, operand, inputs.x[step]);
      if (kWide && step + 1 < table_layout::kSteps) continue;
      if (!grouping_.ends(before + step + 1)) continue;
      const Shared<float> sums = own.template as<float>(kWide ? 0 : grouping_.slot_of(step) * kSlotBytes);
      for (uint32_t r = 0; r < 4; ++r) {
        sums.store(r % 2 * kSlotTokenFloats + 8 * (r / 2), static_cast<float>(d[r]));
        d[r] = 0;
      }
    }
    if ((block & last_part_) == last_part_) hand_over(block, inputs, slots);
  }

 private:
  // The scales, zero points and sums of activations of the groups that end with a block.
  TESSERA_DEVICE void hand_over(uint32_t block, const Inputs& inputs, Shared<std::byte> slots) const {
    const uint32_t lane = lane_index();
    if (lane < 8 * grouping_.chunk_groups()) {
      const Shared<std::byte> slot = slots.template as<std::byte>(lane / 8 * kSlotBytes);
      slot.template as<uint32_t>(kSlotScales).store(lane % 8, inputs.scale);
      if (job_.weights.zero_points) slot.template as<uint32_t>(kSlotZeros).store(lane % 8, inputs.zero);
    }
    if (!job_.weights.zero_points || token_ >= job_.tokens || lane % 4 >= grouping_.chunk_groups()) return;
    const uint32_t end = (block + 1) * table_layout::kSteps;
    const uint32_t left = grouping_.chunk_groups() - lane % 4;
    slots.template as<float>(lane % 4 * kSlotBytes + kSlotInputSums)
        .store(lane / 4, Table::sum_of(job_.x.bytes(token_), job_.x_columns,
                                       end - (left << grouping_.group_shift), grouping_.group_steps()));
  }

  const TableLinearJob& job_;
  const Grouping& grouping_;
  uint32_t blocks_;
  uint32_t groups_;
  uint32_t last_part_;  // of a chunk's blocks, counted from 0
  uint32_t token_;      // whose activations the lane loads
  Global<const std::byte> panel_;
  Global<const uint32_t> scales_;
  Global<std::byte> x_;
  Shared<std::byte> ring_;
};

// Adds `groups` slots to the sum of (row, token).
TESSERA_DEVICE float add_groups(Shared<std::byte> slots, uint32_t groups, uint32_t row, uint32_t token,
                                bool zero_points, float sum) {
  const uint32_t half = table_layout::half_of_row(row);
  for (uint32_t i = 0; i < groups; ++i) {
    const Shared<std::byte> slot = slots.as<std::byte>(i * kSlotBytes);
    float d = slot.as<float>()[token * kSlotTokenFloats + row];
    if (zero_points) {
      const float zero = half_to_float(slot.as<uint16_t>(kSlotZeros)[half]);
      d = multiply_add(-zero, slot.as<float>(kSlotInputSums)[token], d);
    }
    sum = multiply_add(half_to_float(slot.as<uint16_t>(kSlotScales)[half]), d, sum);
  }
  return sum;
}

template <class Table, bool kWide>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kFewWarps) void table_few_tokens(TableLinearJob job) {
  griddepcontrol_launch_dependents();
  using Warp = FewWarp<Table, kWide>;
  const Grouping grouping(job.weights.group);
  const Warp warp(job, grouping);
  const Shared<std::byte> space(shared_memory() + few_ring_bytes(Table::kBits));
  const Shared<std::byte> all_slots = space.as<std::byte>(Table::kSharedBytes);
  const Shared<std::byte> slots =
      all_slots.as<std::byte>((warp_index() << grouping.chunk_group_shift) * kSlotBytes);
  const uint32_t groups = job.weights.columns / table_layout::kStepColumns >> grouping.group_shift;
  const uint32_t round_groups = kFewWarps << grouping.chunk_group_shift;
  const uint32_t row = thread_index() % 16;
  const uint32_t token = thread_index() / 16;
  const bool adds = token < kFewTokens && kFewTokens * block_y() + token < job.tokens;

  constexpr uint32_t kBlockBytes = Warp::kBlockBytes;
  constexpr uint32_t kRingBytes = Warp::kStages * kBlockBytes;
  uint32_t block = warp.first_block();
  uint32_t coming = block;  // the block that is fetched next
  for (uint32_t stage = 0; stage < kRingBytes; stage += kBlockBytes) {
    warp.fetch(coming, stage);
    coming = warp.after(coming);
  }
  const Table table(job.weights.entries, space);  // while the copies are on their way
  griddepcontrol_wait();
  if (Table::kSharedBytes > 0) block_barrier();
  typename Warp::Inputs next{};
  if (warp.has(block)) warp.load(block, next);
  typename Table::Sum d[4] = {0, 0, 0, 0};
  float sum = 0;
  uint32_t stage = 0;
  for (uint32_t first = 0; first < groups; first += round_groups) {
    for (uint32_t part = 0; part < grouping.chunk_blocks() && warp.has(block); ++part) {
      const auto inputs = next;
      uint32_t stored[2 * Table::kBits];
      warp.take(stage, stored);
      warp.fetch(coming, stage);
      coming = warp.after(coming);
      stage = stage + kBlockBytes == kRingBytes ? 0 : stage + kBlockBytes;
      const uint32_t current = block;
      block = warp.after(block);
      if (warp.has(block)) warp.load(block, next);
      warp.multiply(current, table, stored, inputs, d, slots);
    }
    block_barrier();
    const uint32_t left = groups - first;
    if (adds)
      sum = add_groups(all_slots, left < round_groups ? left : round_groups, row, token,
                       job.weights.zero_points, sum);
    block_barrier();  // before the next round overwrites the slots
  }
  const uint32_t n = 16 * block_x() + row;
  if (!adds || n >= job.weights.rows) return;
  const uint32_t own = kFewTokens * block_y() + token;
  float result = multiply_rn(sum, Table::factor(job.x.bytes(own), job.x_columns, job.weights.zero_points));
  if (!job.bias.null()) result = add_rn(result, job.bias[n]);
  job.y.floats(own).store(job.first_column + n, result);
}

template <class Table>
void launch_few_tokens(Queue& queue, const TableLinearJob& job) {
  const uint32_t panels = (job.weights.rows + 15) / 16;
  const uint32_t slots = kFewWarps * Grouping(job.weights.group).chunk_groups();
  const LaunchShape shape{panels,
                          (job.tokens + kFewTokens - 1) / kFewTokens,
                          1,
                          32 * kFewWarps,
                          few_ring_bytes(Table::kBits) + Table::kSharedBytes + slots * kSlotBytes,
                          true};
  if (job.weights.group >= table_layout::kBlockColumns) {
    launch(queue, shape, &table_few_tokens<Table, true>, job);
  } else {
    launch(queue, shape, &table_few_tokens<Table, false>, job);
  }
}

}  // namespace tessera::cuda::tables
