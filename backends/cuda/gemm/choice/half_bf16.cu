#include "backends/cuda/gemm/choice/half_launch.h"

namespace tessera::cuda {

void linear_bf16(Queue& queue, const LinearJob& job) { halves::launch_half<halves::Bf16>(queue, job); }

}  // namespace tessera::cuda
