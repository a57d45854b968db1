#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_lut4(Queue& queue, const TableLinearJobs& jobs) {
  tables::launch_by_activations<tables::Int8Table<4>, tables::Bf16PairTable<>>(queue, jobs);
}

}  // namespace tessera::cuda
