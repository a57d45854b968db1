// Launches the kernel of sm90_table_tiles.h; sm90_table_tiles_*.cu instantiate it.
#pragma once

#include "backends/cuda/gemm/table_linear.h"

namespace tessera::cuda::tables {

// Queues the launch, with tiles of 128 rows by 64 or 128 tokens. Needs code features with warpgroups.
template <class Table, uint32_t kTokens>
void launch_tiles(Queue& queue, const TableLinearJobs& jobs);

}  // namespace tessera::cuda::tables
