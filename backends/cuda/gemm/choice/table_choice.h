// Which kernel multiplies with table weights: the one with the smallest estimated time.
#pragma once

#include <algorithm>
#include <limits>

#include "backends/cuda/gemm/table_linear.h"

namespace tessera::cuda::tables {

enum class TableKernel : uint8_t {
  few8,      // sm80_table_few_tokens.h: 16 rows by 8 tokens
  few16,     // 32 rows by 16 tokens, only for groups of 128 columns or more
  few32,     // 32 rows by 32 tokens, only for groups of 128 columns or more
  many,      // sm80_table_many_tokens.h: 64 rows by 64 tokens
  tiles64,   // sm90_table_tiles.h: 128 rows by 64 tokens
  tiles128,  // 128 rows by 128 tokens
};

// The properties of a device that the choice depends on.
struct TableChoices {
  size_t processors = 1;
  bool warpgroups = false;
  bool few16 = false;  // this kernel fits in shared memory
  bool few32 = false;
};

// Estimates, for an H200 and not measured, the clocks that the busiest multiprocessor needs for 128 columns
// of all its blocks.
// few8, few16, few32: codes and activations come from the L2 cache at about 26 bytes a clock. Blocks of 16
// and 32 tokens have a multiprocessor to themselves, and each scheduler issues their instructions, for two
// warps, in about 190 and 250 clocks.
// many: three blocks share a multiprocessor and issue 500 instructions a scheduler each; a single block takes
// 900 clocks, most of them waiting.
// tiles64, tiles128: a block has a multiprocessor to itself. With 8-bit activations instructions are the
// limit, about 350 or 450 for each of two warps a scheduler: both tiles expand the same codes, but the wide
// one has twice the sums to scale and add. With bfloat16 that also holds for 64 tokens; for 128 the tensor
// cores are the limit, with 1024 clocks.
inline TableKernel choose_table_kernel(const TableChoices& choices, const TableLinearJobs& jobs) {
  const TableLinearJob& job = jobs.items[0];
  const size_t all_rows = size_t{16} * jobs.panels;
  TableKernel best = TableKernel::few8;
  size_t least = std::numeric_limits<size_t>::max();
  const size_t element_bytes = job.weights.int8_activations ? 1 : 2;
  const auto consider = [&](TableKernel kernel, size_t rows, size_t tokens, size_t clocks,
                            size_t at_least = 0) {
    const size_t blocks = ((all_rows + rows - 1) / rows) * ((job.tokens + tokens - 1) / tokens);
    const size_t time = std::max((blocks + choices.processors - 1) / choices.processors * clocks, at_least);
    if (time >= least) return;
    best = kernel;
    least = time;
  };
  const auto read = [&](size_t rows, size_t tokens) {
    return 128 * (element_bytes * tokens + rows * job.weights.bits / 8) / 26;
  };
  if (job.tokens <= 8) return TableKernel::few8;
  // Of kernels with equal times the first one considered wins.
  if (job.tokens > 16) {
    if (choices.warpgroups) {
      consider(TableKernel::tiles128, 128, 128, element_bytes == 1 ? 900 : 1100);
      consider(TableKernel::tiles64, 128, 64, 700);
    } else {
      consider(TableKernel::many, 64, 64, 500, 900);
    }
    if (choices.few32) consider(TableKernel::few32, 32, 32, std::max<size_t>(read(32, 32), 250));
  }
  if (choices.few16) consider(TableKernel::few16, 32, 16, std::max<size_t>(read(32, 16), 190));
  consider(TableKernel::few8, 16, 8, read(16, 8));
  return best;
}

}  // namespace tessera::cuda::tables
