// Starts products with table weights in tiles of wgmma, which sources of their own compile:
// sm90_table_lut*.cu.
#pragma once

#include "backends/cuda/gemm/table_linear.h"

namespace tessera::cuda::tables {

// Tiles of 128 rows by 64 or 128 tokens, on devices whose code has warpgroups.
template <class Table, uint32_t kTokens>
void launch_tiles(Queue& queue, const TableLinearJobs& jobs);

}  // namespace tessera::cuda::tables
