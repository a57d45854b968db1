#include "backends/cuda/gemm/table_kernels.h"

namespace tessera::cuda {

void linear_lut3(Queue& queue, const TableLinearJob& job) { tables::launch_bits<3>(queue, job); }

}  // namespace tessera::cuda
