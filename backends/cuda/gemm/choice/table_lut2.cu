#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_lut2(Queue& queue, const TableLinearJobs& jobs) {
  tables::launch_by_activations<tables::Int8Table<2>, tables::Bf16Table<2>>(queue, jobs);
}

}  // namespace tessera::cuda
