#include "backends/cuda/gemm/sm80_table.h"

namespace tessera::cuda {

void linear_lut4(Queue& queue, const TableLinearJob& job) { tables::launch_bits<4>(queue, job); }

}  // namespace tessera::cuda
