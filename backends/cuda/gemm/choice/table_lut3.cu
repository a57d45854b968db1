#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_lut3(Queue& queue, const TableLinearJobs& jobs) {
  tables::launch_by_activations<tables::Int8Table<3>, tables::Bf16Table<3>>(queue, jobs);
}

}  // namespace tessera::cuda
