// The three integer products for sm_80 and later, for any format:
// - one token: dp4a, a block for each panel, its warps share the columns;
// - up to 8: mma with the weights as the 16-row operand and the tokens as the 8 columns, otherwise the same;
// - more: blocks of 64 rows by 64 tokens, the tokens' codes staged in shared memory by asynchronous copies.
// All sums are exact, so the three agree bit for bit.
#pragma once

#include "backends/cuda/gemm/integer_formats.h"
#include "backends/cuda/launch.h"

namespace tessera::cuda {

inline constexpr uint32_t kFewTokens = 8;
inline constexpr uint32_t kFewWarps = 8;

inline constexpr uint32_t kTileWarps = 4;  // a panel each
inline constexpr uint32_t kTileTokens = 64;
inline constexpr uint32_t kTileColumns = 128;  // staged at a time
inline constexpr uint32_t kTileStages = 2;
// Bytes from one token's staged codes to the next: lanes of a half-warp then read 8 bytes each from different
// banks.
inline constexpr uint32_t kTileStride = kTileColumns + 32;
inline constexpr uint32_t kStageBytes = kTileTokens * kTileStride;

// The lane's eight bytes of activations for one step of 32 columns.
TESSERA_DEVICE Words2 few_codes(const LinearJob& job, uint32_t token, uint32_t column) {
  return job.x.bytes(token).as<const Words2>(column + 8 * (lane_index() % 4))[0];
}

template <class Format>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kFewWarps) void linear_one_token(LinearJob job) {
  const Global<const std::byte> panel = job.weights.codes + block_x() * job.weights.panel_bytes;
  const uint32_t units = job.weights.columns / layout::unit_columns(Format::kFormat);
  int32_t low = 0;   // row lane / 4 of the panel
  int32_t high = 0;  // row lane / 4 + 8
  for (uint32_t unit = warp_index(); unit < units; unit += kFewWarps) {
    uint32_t a[Format::kSteps][4];
    load_unit<Format>(panel, unit, a);
    for (uint32_t step = 0; step < Format::kSteps; ++step) {
      const Words2 x = few_codes(job, 0, (unit * Format::kSteps + step) * 32);
      low = dp4a_u8s8(a[step][2], x.y, dp4a_u8s8(a[step][0], x.x, low));
      high = dp4a_u8s8(a[step][3], x.y, dp4a_u8s8(a[step][1], x.x, high));
    }
  }
  for (uint32_t mask = 1; mask < 4; mask *= 2) {
    low += static_cast<int32_t>(shuffle_xor(static_cast<uint32_t>(low), mask));
    high += static_cast<int32_t>(shuffle_xor(static_cast<uint32_t>(high), mask));
  }
  const Shared<int32_t> sums(shared_memory());  // [warps][16]
  if (lane_index() % 4 == 0) {
    sums.store(16 * warp_index() + lane_index() / 4, low);
    sums.store(16 * warp_index() + lane_index() / 4 + 8, high);
  }
  block_barrier();
  const uint32_t row = 16 * block_x() + thread_index();
  if (thread_index() >= 16 || row >= job.weights.rows) return;
  int32_t sum = 0;
  for (uint32_t warp = 0; warp < kFewWarps; ++warp) sum += sums[16 * warp + thread_index()];
  job.y.floats(0).store(job.first_column + row, finish_integer<Format>(job, row, 0, sum));
}

template <class Format>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kFewWarps) void linear_few_tokens(LinearJob job) {
  const Global<const std::byte> panel = job.weights.codes + block_x() * job.weights.panel_bytes;
  const uint32_t units = job.weights.columns / layout::unit_columns(Format::kFormat);
  const uint32_t token = lane_index() / 4;
  int32_t d[4] = {0, 0, 0, 0};
  for (uint32_t unit = warp_index(); unit < units; unit += kFewWarps) {
    uint32_t a[Format::kSteps][4];
    load_unit<Format>(panel, unit, a);
    for (uint32_t step = 0; step < Format::kSteps; ++step) {
      uint32_t b[2] = {0, 0};
      if (token < job.tokens) {
        const Words2 x = few_codes(job, token, (unit * Format::kSteps + step) * 32);
        b[0] = x.x;
        b[1] = x.y;
      }
      mma_m16n8k32_u8s8(d, a[step], b);
    }
  }
  const Shared<int32_t> sums(shared_memory());  // [warps][16 rows][8 tokens]
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = lane_index() / 4 + 8 * (i / 2);
    sums.store((16 * warp_index() + row) * kFewTokens + 2 * (lane_index() % 4) + i % 2, d[i]);
  }
  block_barrier();
  const uint32_t own_token = thread_index() / 16;
  const uint32_t row = 16 * block_x() + thread_index() % 16;
  if (own_token >= job.tokens || row >= job.weights.rows) return;
  int32_t sum = 0;
  for (uint32_t warp = 0; warp < kFewWarps; ++warp)
    sum += sums[(16 * warp + thread_index() % 16) * kFewTokens + own_token];
  job.y.floats(own_token).store(job.first_column + row, finish_integer<Format>(job, row, own_token, sum));
}

// Starts the copies of kTileColumns columns of the block's tokens; tokens that do not exist become zero.
TESSERA_DEVICE void stage_codes(const LinearJob& job, uint32_t column, Shared<std::byte> stage) {
  constexpr uint32_t kPieces = kTileColumns / 16;
  for (uint32_t piece = thread_index(); piece < kTileTokens * kPieces; piece += 32 * kTileWarps) {
    const uint32_t token = piece / kPieces;
    const uint32_t byte = piece % kPieces * 16;
    const bool real = block_y() * kTileTokens + token < job.tokens;
    const Global<std::byte> row = job.x.bytes(real ? block_y() * kTileTokens + token : 0);
    cp_async_16_or_zero(stage.as<std::byte>(token * kTileStride + byte).address(),
                        (row + (column + byte)).address(), real);
  }
  cp_async_commit();
}

template <class Format>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kTileWarps) void linear_many_tokens(LinearJob job) {
  constexpr uint32_t kColumns = layout::unit_columns(Format::kFormat);
  constexpr uint32_t kTileUnits = kTileColumns / kColumns;
  const uint32_t panels = (job.weights.rows + 15) / 16;
  const uint32_t own = block_x() * kTileWarps + warp_index();
  const bool works = own < panels;
  const Global<const std::byte> panel = job.weights.codes + (works ? own : 0) * job.weights.panel_bytes;
  const uint32_t units = job.weights.columns / kColumns;
  const uint32_t tiles = (units + kTileUnits - 1) / kTileUnits;
  const Shared<std::byte> stages(shared_memory());
  int32_t d[kTileTokens / 8][4] = {};
  stage_codes(job, 0, stages);
  for (uint32_t tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) {
      stage_codes(job, (tile + 1) * kTileColumns,
                  stages.as<std::byte>((tile + 1) % kTileStages * kStageBytes));
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    block_barrier();
    const Shared<std::byte> codes = stages.as<std::byte>(tile % kTileStages * kStageBytes);
    for (uint32_t i = 0; works && i < kTileUnits && tile * kTileUnits + i < units; ++i) {
      uint32_t a[Format::kSteps][4];
      load_unit<Format>(panel, tile * kTileUnits + i, a);
      for (uint32_t step = 0; step < Format::kSteps; ++step) {
        const uint32_t byte = (i * Format::kSteps + step) * 32 + 8 * (lane_index() % 4);
        for (uint32_t n = 0; n < kTileTokens / 8; ++n) {
          const Words2 x = codes.as<Words2>((8 * n + lane_index() / 4) * kTileStride + byte)[0];
          const uint32_t b[2] = {x.x, x.y};
          mma_m16n8k32_u8s8(d[n], a[step], b);
        }
      }
    }
    block_barrier();  // before the next copies overwrite this stage
  }
  if (!works) return;
  for (uint32_t n = 0; n < kTileTokens / 8; ++n) {
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = 16 * own + lane_index() / 4 + 8 * (i / 2);
      const uint32_t token = block_y() * kTileTokens + 8 * n + 2 * (lane_index() % 4) + i % 2;
      if (row >= job.weights.rows || token >= job.tokens) continue;
      job.y.floats(token).store(job.first_column + row, finish_integer<Format>(job, row, token, d[n][i]));
    }
  }
}

template <class Format>
void launch_integer(Queue& queue, const LinearJob& job) {
  const uint32_t panels = (job.weights.rows + 15) / 16;
  if (job.tokens == 1) {
    launch(queue, {panels, 1, 1, 32 * kFewWarps, kFewWarps * 16 * 4}, &linear_one_token<Format>, job);
  } else if (job.tokens <= kFewTokens) {
    launch(queue, {panels, 1, 1, 32 * kFewWarps, kFewWarps * 16 * kFewTokens * 4}, &linear_few_tokens<Format>,
           job);
  } else {
    launch(queue,
           {(panels + kTileWarps - 1) / kTileWarps, (job.tokens + kTileTokens - 1) / kTileTokens, 1,
            32 * kTileWarps, kTileStages * kStageBytes},
           &linear_many_tokens<Format>, job);
  }
}

}  // namespace tessera::cuda
