#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_lut4(Queue& queue, const TableLinearJobs& jobs) { tables::launch_bits<4>(queue, jobs); }

}  // namespace tessera::cuda
