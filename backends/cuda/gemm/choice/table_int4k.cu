#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_int4k(Queue& queue, const TableLinearJobs& jobs) {
  tables::launch_by_activations<tables::Int8Table<4, true>, tables::Bf16PairTable<true>>(queue, jobs);
}

}  // namespace tessera::cuda
