// The whole CUDA backend, op by op, against the reference backend, with fresh random inputs at odd sizes: on
// the emulator, and on a device where the build has one.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "backends/reference/reference_backend.h"
#include "tests/cuda/test_queue.h"
#include "tests/unit/op_cases.h"

using namespace tessera;

namespace {

// Whether the weights of a case are in a table scheme. These are 32 of the 38 schemes and share a few
// kernels.
bool of_tables(const rig::OpCase& test) {
  return std::any_of(test.graph.weights.begin(), test.graph.weights.end(), [](const Weight& weight) {
    return table_format(weight.scheme) && weight.name != "identity";
  });
}

}  // namespace

TEST_CASE("every op of the cuda backend equals the reference") {
  const std::unique_ptr<Backend> cuda = cuda::any_backend("cuda ops");
  if (!cuda) return;
  const std::unique_ptr<Backend> reference = make_reference_backend();
  rig::Random random = cuda::seeded("cuda ops");
  const std::vector<rig::OpCase> cases = rig::op_cases(random());
  // Sanitizers make the emulator several times slower: with them every second case, chosen at random.
  const size_t step = std::getenv("TESSERA_SANITIZED") != nullptr ? 2 : 1;
  for (size_t i = rig::pick(random, 0, step - 1); i < cases.size(); i += step) {
    const rig::OpCase& test = cases[i];
    if (of_tables(test) && random() % 4 != 0) continue;  // table_linear_test tests all of them
    CAPTURE(test.name);
    CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(*cuda, test)) == "");
  }
}
