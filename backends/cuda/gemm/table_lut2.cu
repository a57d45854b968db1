#include "backends/cuda/gemm/table_kernels.h"

namespace tessera::cuda {

void linear_lut2(Queue& queue, const TableLinearJob& job) { tables::launch_bits<2>(queue, job); }

}  // namespace tessera::cuda
