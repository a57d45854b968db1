#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_int8(Queue& queue, const TableLinearJobs& jobs) {
  tables::launch_by_activations<tables::Int8Bytes, tables::Bf16Bytes>(queue, jobs);
}

}  // namespace tessera::cuda
