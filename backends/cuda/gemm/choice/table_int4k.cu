#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_int4k(Queue& queue, const TableLinearJobs& jobs) {
  tables::launch_by_activations<tables::Int8Table<4, tables::LevelForm::nested>,
                                tables::Bf16PairTable<tables::LevelForm::nested>>(queue, jobs);
}

}  // namespace tessera::cuda
