#include "backends/cuda/gemm/kernels/sm90_table_tiles.h"

namespace tessera::cuda::tables {

template void launch_tiles<Int8Table<3, LevelForm::scales>, 64>(Queue&, const TableLinearJobs&);
template void launch_tiles<Int8Table<3, LevelForm::scales>, 128>(Queue&, const TableLinearJobs&);
template void launch_tiles<Bf16Table<3>, 64>(Queue&, const TableLinearJobs&);
template void launch_tiles<Bf16Table<3>, 128>(Queue&, const TableLinearJobs&);

}  // namespace tessera::cuda::tables
