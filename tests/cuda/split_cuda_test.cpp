// The first layers of a graph on one backend and the rest on the device, as with --gpu-layers; the reference
// backend stands in for the CPU's.
#include <memory>

#include "backends/cuda/cuda_backend.h"
#include "backends/reference/reference_backend.h"
#include "backends/split/split_backend.h"
#include "tests/cuda/test_queue.h"
#include "tests/unit/op_cases.h"

using namespace tessera;

TEST_CASE("layers on the device behind layers elsewhere compute what all on one do") {
  const std::unique_ptr<Backend> device = cuda::any_backend("split over two backends");
  if (!device) return;
  rig::Random random = cuda::seeded("split over two backends");
  const auto another = [] { return rig::unwrap(make_cuda_backend(), "cuda"); };
  const std::unique_ptr<Backend> reference = make_reference_backend();
  const rig::OpCase test = rig::layers_case(random, Scheme::w4a8_g128, 4);
  CHECK(rig::run_case(*make_split_backend(another(), another(), 1), test) == rig::run_case(*device, test));
  const std::vector<float> expected = rig::run_case(*reference, test);
  const auto both = make_split_backend(make_reference_backend(), another(), 1);
  CHECK(rig::difference(test, expected, rig::run_case(*both, test)) == "");
}
