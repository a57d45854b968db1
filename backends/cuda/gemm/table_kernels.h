// Which kernel multiplies with table weights of a number of bits.
#pragma once

#include "backends/cuda/gemm/sm80_table_few.h"
#include "backends/cuda/gemm/sm80_table_many.h"
#include "backends/cuda/gemm/table_tiles.h"

namespace tessera::cuda::tables {

// Up to this many tokens the weights' bytes take longer than the products. Beyond 8 they are read twice, the
// second time from the L2 cache.
inline constexpr uint32_t kMostFewTokens = 16;

template <class Table>
void launch_table(Queue& queue, const TableLinearJob& job) {
  if (job.tokens <= kMostFewTokens) return launch_few_tokens<Table>(queue, job);
  if (!queue.features().warpgroups) return launch_many_tokens<Table>(queue, job);
  if (best_tile_tokens(queue.facts().processors, job) == 64) {
    launch_tiles<Table, 64>(queue, job);
  } else {
    launch_tiles<Table, 128>(queue, job);
  }
}

template <uint32_t kBits>
void launch_bits(Queue& queue, const TableLinearJob& job) {
  if (job.weights.int8_activations) {
    launch_table<Int8Table<kBits>>(queue, job);
  } else if constexpr (kBits == 4) {
    launch_table<Bf16PairTable>(queue, job);
  } else {
    launch_table<Bf16Table<kBits>>(queue, job);
  }
}

}  // namespace tessera::cuda::tables
