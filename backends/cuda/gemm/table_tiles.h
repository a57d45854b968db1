// Products with table weights for more than 16 tokens on devices whose code has warpgroups: which tiles they
// take, and how they are started.
#pragma once

#include "backends/cuda/gemm/table_linear.h"

namespace tessera::cuda::tables {

inline constexpr uint32_t kTileRows = 128;

// Tokens of the tiles that should take least time, 64 or 128. A processor has one tile at a time, so what
// counts is how many the fullest one makes and what each takes. Reckoned, not measured, in hundreds of clocks
// for 128 columns in one group: with 8-bit activations instructions are the limit, about 350 or 450 for each
// of two warps a scheduler, because either tile expands all codes but the wide one has twice the sums to
// scale and add; with bfloat16 they still are for 64 tokens, for 128 the tensor cores are, with 1024.
inline uint32_t best_tile_tokens(size_t processors, const TableLinearJob& job) {
  const auto fullest = [&](size_t tokens) {
    const size_t tiles =
        ((job.weights.rows + kTileRows - 1) / kTileRows) * ((job.tokens + tokens - 1) / tokens);
    return (tiles + processors - 1) / processors;
  };
  const size_t wide = job.weights.int8_activations ? 9 : 11;
  const size_t narrow = 7;
  return fullest(128) * wide <= fullest(64) * narrow ? 128 : 64;
}

// Tiles of kTileRows rows by 64 or 128 tokens. Instances are in sm90_table_lut*.cu.
template <class Table, uint32_t kTokens>
void launch_tiles(Queue& queue, const TableLinearJob& job);

}  // namespace tessera::cuda::tables
