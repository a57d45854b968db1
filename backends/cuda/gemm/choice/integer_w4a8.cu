#include "backends/cuda/gemm/choice/integer_launch.h"

namespace tessera::cuda {

void linear_w4a8(Queue& queue, const IntegerJob& job) {
  launch_integer<IntegerFormat<WeightFormat::w4a8>>(queue, job);
}

}  // namespace tessera::cuda
