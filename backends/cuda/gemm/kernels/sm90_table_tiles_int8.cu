#include "backends/cuda/gemm/kernels/sm90_table_tiles.h"

namespace tessera::cuda::tables {

template void launch_tiles<Int8Bytes, 64>(Queue&, const TableLinearJobs&);
template void launch_tiles<Int8Bytes, 128>(Queue&, const TableLinearJobs&);
template void launch_tiles<Bf16Bytes, 64>(Queue&, const TableLinearJobs&);
template void launch_tiles<Bf16Bytes, 128>(Queue&, const TableLinearJobs&);

}  // namespace tessera::cuda::tables
