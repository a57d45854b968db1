#include "backends/cuda/gemm/sm80_half.h"

namespace tessera::cuda {

void linear_bf16(Queue& queue, const LinearJob& job) { halves::launch_half<halves::Bf16>(queue, job); }

}  // namespace tessera::cuda
