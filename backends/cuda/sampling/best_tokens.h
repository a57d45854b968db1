// The best tokens of rows of logits, found on the device so that only they are copied to the host.
#pragma once

#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/activation_rows.h"
#include "graph/batch.h"

namespace tessera::cuda {

inline constexpr size_t kMostBestTokens = 256;         // of one row
inline constexpr size_t kBestTokensColumns = 1 << 26;  // largest number of logits of a row

struct BestTokensJob {
  Rows logits;  // f32
  uint32_t columns = 0;
  uint32_t count = 0;        // 1 … kMostBestTokens
  Global<uint64_t> scratch;  // best_tokens_scratch words
  Global<TokenLogit> best;   // [rows, count]
};

// Words of scratch memory that best_tokens needs for `rows` rows.
size_t best_tokens_scratch(size_t rows, uint32_t columns, uint32_t count);

// Queues: best[row] = the `count` highest finite logits of the row in descending order, equal ones by
// ascending token id. A row with fewer finite logits is filled with -infinity.
void best_tokens(Queue& queue, const BestTokensJob& job, uint32_t rows);

}  // namespace tessera::cuda
