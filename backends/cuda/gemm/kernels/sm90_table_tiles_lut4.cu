#include "backends/cuda/gemm/kernels/sm90_table_tiles.h"

namespace tessera::cuda::tables {

template void launch_tiles<Int8Table<4>, 64>(Queue&, const TableLinearJobs&);
template void launch_tiles<Int8Table<4>, 128>(Queue&, const TableLinearJobs&);
template void launch_tiles<Bf16PairTable<>, 64>(Queue&, const TableLinearJobs&);
template void launch_tiles<Bf16PairTable<>, 128>(Queue&, const TableLinearJobs&);

}  // namespace tessera::cuda::tables
