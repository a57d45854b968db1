#include "backends/cuda/gemm/choice/integer_launch.h"

namespace tessera::cuda {

void linear_w4a8_g128(Queue& queue, const IntegerJob& job) {
  launch_integer<IntegerFormat<WeightFormat::w4a8_g128>>(queue, job);
}

}  // namespace tessera::cuda
