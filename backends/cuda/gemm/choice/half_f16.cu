#include "backends/cuda/gemm/choice/half_launch.h"

namespace tessera::cuda {

void linear_f16(Queue& queue, const LinearJob& job) { halves::launch_half<halves::F16>(queue, job); }

}  // namespace tessera::cuda
