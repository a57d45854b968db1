// Products with table weights for many tokens, sm_80 and later. A block computes 64 rows by 64 tokens. A warp
// expands the codes of its panel once for all tokens of the block; asynchronous copies bring activations to
// shared memory, 128 columns at a time.
#pragma once

#include "backends/cuda/device/launch.h"
#include "backends/cuda/gemm/formats/table_codes.h"

namespace tessera::cuda::tables {

inline constexpr uint32_t kManyWarps = 4;  // each has one panel
inline constexpr uint32_t kManyTokens = 64;
inline constexpr uint32_t kManyTiles = kManyTokens / 8;
inline constexpr uint32_t kManyStages = 2;
inline constexpr uint32_t kManySums = table_layout::kSteps * kManyTokens;  // of a stage, with offsets

// Bytes from one token's staged activations to the next, padded so that lanes which read together, four
// tokens of 8 bytes a lane or two of 16, read from different banks.
constexpr uint32_t many_stride(uint32_t element_bytes) {
  return element_bytes * table_layout::kBlockColumns + (element_bytes == 1 ? 32 : 64);
}
constexpr uint32_t many_stage_bytes(uint32_t element_bytes) {
  return kManyTokens * many_stride(element_bytes);
}

// Starts the copies of a block of columns of all tokens; tokens beyond the last are zero.
template <class Table>
TESSERA_DEVICE void stage_inputs(const TableLinearJob& job, uint32_t block, Shared<std::byte> stage) {
  constexpr uint32_t kRowBytes = Table::kElementBytes * table_layout::kBlockColumns;
  constexpr uint32_t kPieces = kRowBytes / 16;
  for (uint32_t piece = thread_index(); piece < kManyTokens * kPieces; piece += 32 * kManyWarps) {
    const uint32_t token = piece / kPieces;
    const uint32_t byte = piece % kPieces * 16;
    const bool real = block_y() * kManyTokens + token < job.tokens;
    const Global<std::byte> row = job.x.bytes(real ? block_y() * kManyTokens + token : 0);
    cp_async_16_or_zero(stage.as<std::byte>(token * many_stride(Table::kElementBytes) + byte).address(),
                        (row + (size_t{block} * kRowBytes + byte)).address(), real);
  }
  cp_async_commit();
}

// With offsets: stores the sums of the tokens' activations over the groups that end with the block,
// [groups of a chunk][tokens].
template <class Table>
TESSERA_DEVICE void stage_sums(const TableLinearJob& job, const Grouping& grouping, uint32_t block,
                               Shared<float> sums) {
  const uint32_t end = (block + 1) * table_layout::kSteps;
  if (!grouping.ends(end)) return;
  for (uint32_t i = thread_index(); i < kManyTokens << grouping.chunk_group_shift; i += 32 * kManyWarps) {
    const uint32_t token = block_y() * kManyTokens + i % kManyTokens;
    const uint32_t left = grouping.chunk_groups() - i / kManyTokens;
    float sum = 0;
    if (token < job.tokens)
      sum = Table::sum_of(job.x.bytes(token), job.x_columns, end - (left << grouping.group_shift),
                          grouping.group_steps());
    sums.store(i, sum);
  }
}

// A warp's panel, whose codes are loaded from global memory one block ahead.
template <class Table>
class ManyPanel {
 public:
  static constexpr uint32_t kBits = Table::kBits;
  struct Block {
    uint32_t stored[2 * kBits];
    uint32_t scale[table_layout::kSteps];  // of the group of each step: rows g and g + 8; nested: bytes of
                                           // both kinds
  };

  TESSERA_DEVICE ManyPanel(const TableView& weights, const Grouping& grouping, uint32_t panel)
      : group_shift_(grouping.group_shift),
        groups_(weights.columns / table_layout::kStepColumns >> group_shift_),
        columns_(weights.columns),
        has_offsets_(weights.has_offsets()),
        panel_(weights.panels + panel * weights.panel_bytes),
        scales_(panel_.template as<const uint32_t>(table_layout::scales_byte(kBits, weights.columns, 0))) {}

  TESSERA_DEVICE Block load(uint32_t block) const {
    Block result;
    const Global<const std::byte> at = panel_ + size_t{block} * table_layout::block_bytes(kBits);
    load_words<kBits>(at, result.stored);
    for (uint32_t step = 0; step < table_layout::kSteps; ++step)
      result.scale[step] = parameters(group_of(block, step));
    return result;
  }
  // The levels of a group, of which `scale` is loaded.
  TESSERA_DEVICE Levels levels(uint32_t group, uint32_t scale) const {
    if constexpr (Table::kNested) {
      const size_t factors = table_layout::nested_factors_byte(columns_, group / tile::kNestedGroups);
      const auto own = panel_.template as<const uint32_t>(factors) + lane_index() / 4;
      return nested_levels(scale, own[0], own[8]);
    }
    const uint32_t offset = has_offsets_ ? parameters(groups_ + group) : 0;
    return {{row_scale(scale, false), row_scale(scale, true)},
            {row_scale(offset, false), row_scale(offset, true)}};
  }
  TESSERA_DEVICE uint32_t group_of(uint32_t block, uint32_t step) const {
    return (block * table_layout::kSteps + step) >> group_shift_;
  }

 private:
  // The scales of a group, or the offsets of group - groups_.
  TESSERA_DEVICE uint32_t parameters(uint32_t group) const {
    return scales_[size_t{group} * (table_layout::kGroupBytes / 4) + lane_index() / 4];
  }

  uint32_t group_shift_;
  uint32_t groups_;
  uint32_t columns_;
  bool has_offsets_;
  Global<const std::byte> panel_;
  Global<const uint32_t> scales_;
};

// Adds a group to acc, then d = 0. sums: of the tokens' activations in the group.
template <class Table>
TESSERA_DEVICE void end_group(const ManyPanel<Table>& panel, GroupOffset kind, uint32_t group,
                              uint32_t scales, Shared<float> sums, typename Table::Sum (&d)[kManyTiles][4],
                              float (&acc)[kManyTiles][4]) {
  const Levels levels = panel.levels(group, scales);
  for (uint32_t n = 0; n < kManyTiles; ++n) {
    for (uint32_t side = 0; side < 2; ++side) {
      const float inputs = kind != GroupOffset::none ? sums[8 * n + 2 * (lane_index() % 4) + side] : 0.0f;
      for (uint32_t lower = 0; lower < 2; ++lower) {
        const uint32_t i = 2 * lower + side;
        acc[n][i] = add_group(kind, levels.scale[lower], levels.offset[lower], inputs,
                              static_cast<float>(d[n][i]), acc[n][i]);
        d[n][i] = 0;
      }
    }
  }
}

template <class Table>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kManyWarps) void table_many_tokens(TableLinearJobs jobs) {
  const uint32_t which = jobs.which(block_x() * kManyWarps);
  const TableLinearJob& job = jobs.items[which];
  constexpr uint32_t kStride = many_stride(Table::kElementBytes);
  constexpr uint32_t kStageBytes = many_stage_bytes(Table::kElementBytes);
  const uint32_t own = block_x() * kManyWarps - jobs.first_panel[which] + warp_index();
  const bool works = own < (job.weights.rows + 15) / 16;
  const Grouping grouping(job.weights.group);
  const ManyPanel<Table> panel(job.weights, grouping, works ? own : 0);
  const uint32_t blocks = job.weights.columns / table_layout::kBlockColumns;
  const bool offsets = job.weights.has_offsets();
  const Shared<std::byte> stages(shared_memory());
  const Shared<float> sums = stages.as<float>(kManyStages * kStageBytes);  // [stages][kManySums]
  const Table table(job.weights.entries, stages.as<std::byte>(kManyStages * (kStageBytes + kManySums * 4)));
  typename Table::Sum d[kManyTiles][4] = {};
  float acc[kManyTiles][4] = {};
  stage_inputs<Table>(job, 0, stages);
  if (offsets) stage_sums<Table>(job, grouping, 0, sums);
  auto next = panel.load(0);
  for (uint32_t block = 0; block < blocks; ++block) {
    const auto codes = next;
    if (block + 1 < blocks) {
      stage_inputs<Table>(job, block + 1, stages.as<std::byte>((block + 1) % kManyStages * kStageBytes));
      next = panel.load(block + 1);
      if (offsets)
        stage_sums<Table>(job, grouping, block + 1,
                          sums.as<float>((block + 1) % kManyStages * kManySums * 4));
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    block_barrier();
    const Shared<std::byte> stage = stages.as<std::byte>(block % kManyStages * kStageBytes);
    TESSERA_UNROLL
    for (uint32_t step = 0; step < table_layout::kSteps; ++step) {
      if (!works) break;
      const auto operand = table.operand(row_codes<Table::kBits>(codes.stored, 2 * step),
                                         row_codes<Table::kBits>(codes.stored, 2 * step + 1));
      const uint32_t byte =
          (step * table_layout::kStepColumns + 8 * (lane_index() % 4)) * Table::kElementBytes;
      for (uint32_t n = 0; n < kManyTiles; ++n) {
        const auto x = stage.as<typename Table::Inputs>((8 * n + lane_index() / 4) * kStride + byte)[0];
        Table::multiply(d[n], operand, x);
      }
      const uint32_t done = block * table_layout::kSteps + step + 1;
      if (!grouping.ends(done)) continue;
      const uint32_t slot = grouping.slot_of(step);
      const Shared<float> group_sums =
          sums.as<float>((block % kManyStages * kManySums + slot * kManyTokens) * 4);
      end_group(panel, job.weights.offset, panel.group_of(block, step), codes.scale[step], group_sums, d,
                acc);
    }
    block_barrier();  // before the next copies overwrite this stage
  }
  if (!works) return;
  TESSERA_UNROLL
  for (uint32_t n = 0; n < kManyTiles; ++n) {
    for (uint32_t side = 0; side < 2; ++side) {
      const uint32_t token = block_y() * kManyTokens + 8 * n + 2 * (lane_index() % 4) + side;
      if (token >= job.tokens) continue;
      const float factor = Table::factor(job.x.bytes(token), job.x_columns, job.weights.table);
      for (uint32_t lower = 0; lower < 2; ++lower) {
        const uint32_t row = 16 * own + lane_index() / 4 + 8 * lower;
        if (row >= job.weights.rows) continue;
        float result = multiply_rn(acc[n][2 * lower + side], factor);
        if (!job.bias.null()) result = add_rn(result, job.bias[row]);
        job.y.floats(token).store(job.first_column + row, result);
      }
    }
  }
}

template <class Table>
void launch_many_tokens(Queue& queue, const TableLinearJobs& jobs) {
  // Not early: a multiprocessor has room for two blocks, and the first ones to become free would get two
  // each.
  launch(queue,
         {jobs.blocks(kManyWarps), (jobs.items[0].tokens + kManyTokens - 1) / kManyTokens, 1, 32 * kManyWarps,
          kManyStages * (many_stage_bytes(Table::kElementBytes) + kManySums * 4) + Table::kSharedBytes},
         &table_many_tokens<Table>, jobs);
}

}  // namespace tessera::cuda::tables
