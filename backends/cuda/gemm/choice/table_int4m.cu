#include "backends/cuda/gemm/choice/table_launch.h"

namespace tessera::cuda {

void linear_int4m(Queue& queue, const TableLinearJobs& jobs) {
  tables::launch_by_activations<tables::Int8Table<4, tables::LevelForm::minimums>,
                                tables::Bf16PairTable<tables::LevelForm::minimums>>(queue, jobs);
}

}  // namespace tessera::cuda
