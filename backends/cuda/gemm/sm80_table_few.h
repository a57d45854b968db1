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

// The part of one warp: its sequence of blocks, block by block.
template <class Table>
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
        panel_(job.weights.panels + block_x() * job.weights.panel_bytes),
        blocks_(job.weights.columns / table_layout::kBlockColumns),
        groups_(blocks_ * table_layout::kSteps >> grouping.group_shift),
        token_(kFewTokens * block_y() + lane_index() / 4),
        ring_(shared_memory() + warp_index() * kStages * kBlockBytes) {}

  // The warp's i-th block; blocks_ or more: none.
  TESSERA_DEVICE uint32_t block_of(uint32_t i) const {
    const uint32_t chunk = (i >> grouping_.chunk_shift) * kFewWarps + warp_index();
    return (chunk << grouping_.chunk_shift) + part_of(i);
  }
  // Its place within its chunk.
  TESSERA_DEVICE uint32_t part_of(uint32_t i) const { return i & (grouping_.chunk_blocks() - 1); }
  TESSERA_DEVICE bool has(uint32_t i) const { return block_of(i) < blocks_; }

  // Starts the copy of the i-th block's codes; one group of copies whether there is such a block or not.
  TESSERA_DEVICE void fetch(uint32_t i) const {
    const uint32_t block = block_of(i);
    if (block < blocks_) {
      const Global<const std::byte> from = panel_ + size_t{block} * kBlockBytes;
      const Shared<std::byte> to = ring_.template as<std::byte>(i % kStages * kBlockBytes);
      for (uint32_t byte = 16 * lane_index(); byte < kBlockBytes; byte += 512)
        cp_async_16(to.template as<std::byte>(byte).address(), (from + byte).address());
    }
    cp_async_commit();
  }

  TESSERA_DEVICE Inputs inputs(uint32_t i) const {
    Inputs result{};
    const uint32_t block = block_of(i);
    if (block >= blocks_) return result;
    if (token_ < job_.tokens) {
      const Global<std::byte> x = job_.x.bytes(token_);
      for (uint32_t step = 0; step < table_layout::kSteps; ++step) {
        const uint32_t column =
            block * table_layout::kBlockColumns + step * table_layout::kStepColumns + 8 * (lane_index() % 4);
        result.x[step] = x.as<typename Table::Inputs>(size_t{column} * Table::kElementBytes)[0];
      }
    }
    if (lane_index() < 8 * grouping_.chunk_groups()) {
      const uint32_t group = block * table_layout::kSteps >> grouping_.group_shift;
      result.scale = parameters(group)[lane_index()];
      if (job_.weights.zero_points) result.zero = parameters(groups_ + group)[lane_index()];
    }
    return result;
  }

  // Waits for the i-th block's codes, takes them out of the ring and starts the copy that follows in their
  // place. Barriers, because with 3 bits a lane's words came by other lanes' copies.
  TESSERA_DEVICE void take(uint32_t i, uint32_t (&stored)[2 * kBits]) const {
    cp_async_wait<kStages - 1>();
    warp_barrier();
    if (has(i)) {
      const Shared<std::byte> stage = ring_.template as<std::byte>(i % kStages * kBlockBytes);
      const Words4 first = stage.template as<Words4>()[lane_index()];
      stored[0] = first.x;
      stored[1] = first.y;
      stored[2] = first.z;
      stored[3] = first.w;
      if constexpr (kBits == 3) {
        const Words2 last = stage.template as<Words2>(512)[lane_index()];
        stored[4] = last.x;
        stored[5] = last.y;
      } else if constexpr (kBits == 4) {
        const Words4 last = stage.template as<Words4>(512)[lane_index()];
        stored[4] = last.x;
        stored[5] = last.y;
        stored[6] = last.z;
        stored[7] = last.w;
      }
    }
    warp_barrier();
    fetch(i + kStages);
  }

  // Adds the i-th block to d; groups that end go to the chunk's slots and leave d at zero.
  TESSERA_DEVICE void multiply(uint32_t i, const Table& table, const uint32_t (&stored)[2 * kBits],
                               const Inputs& inputs, typename Table::Sum (&d)[4],
                               Shared<std::byte> slots) const {
    const uint32_t first_step = part_of(i) * table_layout::kSteps;
    TESSERA_UNROLL
    for (uint32_t step = 0; step < table_layout::kSteps; ++step) {
      const auto operand =
          table.operand(nibble_word<kBits>(stored, 2 * step), nibble_word<kBits>(stored, 2 * step + 1));
      Table::multiply(d, operand, inputs.x[step]);
      const uint32_t done = first_step + step + 1;
      if (!grouping_.ends(done)) continue;
      const Shared<float> sums = slots.template as<float>(((done >> grouping_.group_shift) - 1) * kSlotBytes);
      for (uint32_t r = 0; r < 4; ++r) {
        const uint32_t token = 2 * (lane_index() % 4) + r % 2;
        sums.store(token * kSlotTokenFloats + lane_index() / 4 + 8 * (r / 2), static_cast<float>(d[r]));
        d[r] = 0;
      }
    }
    if (part_of(i + 1) == 0) hand_over(i, inputs, slots);
  }

 private:
  // The scales, zero points and sums of activations of the groups that end with the i-th block.
  TESSERA_DEVICE void hand_over(uint32_t i, const Inputs& inputs, Shared<std::byte> slots) const {
    const uint32_t lane = lane_index();
    if (lane < 8 * grouping_.chunk_groups()) {
      const Shared<std::byte> slot = slots.template as<std::byte>(lane / 8 * kSlotBytes);
      slot.template as<uint32_t>(kSlotScales).store(lane % 8, inputs.scale);
      if (job_.weights.zero_points) slot.template as<uint32_t>(kSlotZeros).store(lane % 8, inputs.zero);
    }
    if (!job_.weights.zero_points || token_ >= job_.tokens || lane % 4 >= grouping_.chunk_groups()) return;
    const uint32_t end = (block_of(i) + 1) * table_layout::kSteps;
    const uint32_t first = end - (grouping_.chunk_groups() - lane % 4) * grouping_.group_steps();
    slots.template as<float>(lane % 4 * kSlotBytes + kSlotInputSums)
        .store(lane / 4, Table::sum_of(job_.x.bytes(token_), job_.x_columns, first, grouping_.group_steps()));
  }
  // The scales of a group, or the zero points of group - groups_.
  TESSERA_DEVICE Global<const uint32_t> parameters(uint32_t group) const {
    return panel_.as<const uint32_t>(table_layout::scales_byte(kBits, job_.weights.columns, group));
  }

  const TableLinearJob& job_;
  const Grouping& grouping_;
  Global<const std::byte> panel_;
  uint32_t blocks_;
  uint32_t groups_;
  uint32_t token_;
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

template <class Table>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kFewWarps) void linear_few_tokens(TableLinearJob job) {
  const Grouping grouping(job.weights.group);
  const FewWarp<Table> warp(job, grouping);
  const Table table(job.weights.entries);
  const Shared<std::byte> all_slots(shared_memory() + few_ring_bytes(Table::kBits));
  const Shared<std::byte> slots =
      all_slots.as<std::byte>((warp_index() << grouping.chunk_group_shift) * kSlotBytes);
  const uint32_t groups = job.weights.columns / table_layout::kStepColumns >> grouping.group_shift;
  const uint32_t round_groups = kFewWarps << grouping.chunk_group_shift;
  const uint32_t row = thread_index() % 16;
  const uint32_t token = thread_index() / 16;
  const bool adds = token < kFewTokens && kFewTokens * block_y() + token < job.tokens;

  for (uint32_t i = 0; i < FewWarp<Table>::kStages; ++i) warp.fetch(i);
  auto next = warp.inputs(0);
  typename Table::Sum d[4] = {0, 0, 0, 0};
  float sum = 0;
  uint32_t i = 0;
  for (uint32_t first = 0; first < groups; first += round_groups) {
    for (const uint32_t end = i + grouping.chunk_blocks(); i < end; ++i) {
      const auto inputs = next;
      uint32_t stored[2 * Table::kBits] = {};
      warp.take(i, stored);
      next = warp.inputs(i + 1);
      if (warp.has(i)) warp.multiply(i, table, stored, inputs, d, slots);
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
  float result = Table::finished(sum, job.x.bytes(own), job.x_columns, job.weights.zero_points);
  if (!job.bias.null()) result = add_rn(result, job.bias[n]);
  job.y.floats(own).store(job.first_column + n, result);
}

template <class Table>
void launch_few_tokens(Queue& queue, const TableLinearJob& job) {
  const uint32_t panels = (job.weights.rows + 15) / 16;
  const uint32_t slots = kFewWarps * Grouping(job.weights.group).chunk_groups();
  launch(queue,
         {panels, (job.tokens + kFewTokens - 1) / kFewTokens, 1, 32 * kFewWarps,
          few_ring_bytes(Table::kBits) + slots * kSlotBytes},
         &linear_few_tokens<Table>, job);
}

}  // namespace tessera::cuda::tables
