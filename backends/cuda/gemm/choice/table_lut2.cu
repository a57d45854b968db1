#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_lut2(Queue& queue, const TableLinearJobs& jobs) { tables::launch_bits<2>(queue, jobs); }

}  // namespace tessera::cuda
