// The best tokens of rows of logits, ranked on the device so that only they have to be copied back.
#pragma once

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/activation_rows.h"
#include "graph/batch.h"

namespace tessera::cuda {

inline constexpr size_t kMostBestTokens = 256;         // of one row
inline constexpr size_t kBestTokensColumns = 1 << 26;  // most logits of a row

struct BestTokensJob {
  Rows logits;  // f32
  uint32_t columns = 0;
  uint32_t count = 0;        // 1 … kMostBestTokens
  Global<uint64_t> scratch;  // best_tokens_scratch words
  Global<TokenLogit> best;   // [rows, count]
};

// Words of scratch for so many rows.
size_t best_tokens_scratch(size_t rows, uint32_t columns, uint32_t count);

// best[row] = the count highest finite logits of the row, best first, equal ones by token id. A row that has
// fewer ends in -infinity. Queued; returns at once.
void best_tokens(Queue& queue, const BestTokensJob& job, uint32_t rows);

}  // namespace tessera::cuda
