#include "backends/cuda/gemm/table_kernels.h"

namespace tessera::cuda {

void linear_lut4(Queue& queue, const TableLinearJob& job) { tables::launch_bits<4>(queue, job); }

}  // namespace tessera::cuda
