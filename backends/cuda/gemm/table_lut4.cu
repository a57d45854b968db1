#include "backends/cuda/gemm/table_kernels.h"

namespace tessera::cuda {

void linear_lut4(Queue& queue, const TableLinearJobs& jobs) { tables::launch_bits<4>(queue, jobs); }

}  // namespace tessera::cuda
