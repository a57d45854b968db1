#include "backends/cuda/gemm/table_kernels.h"

namespace tessera::cuda {

void linear_lut3(Queue& queue, const TableLinearJobs& jobs) { tables::launch_bits<3>(queue, jobs); }

}  // namespace tessera::cuda
