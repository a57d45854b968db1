// The whole CUDA backend, op by op, against the reference backend, with fresh random inputs at odd sizes: on
// the emulator, and on a device where the build has one.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/cuda/cuda_backend.h"
#include "backends/reference/reference_backend.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

namespace {

uint64_t fresh_seed(const char* what) {
  const uint64_t seed = std::random_device{}();
  std::cout << what << ": seed " << seed << "\n";
  return seed;
}

std::unique_ptr<Backend> cuda_backend() {
  auto made = make_cuda_backend();
  if (made.ok()) return std::move(made.value());
  std::cout << "skipped: " << made.error() << "\n";
  return nullptr;
}

// Its weights are of a table scheme: 32 of the 38 schemes, which share a few kernels.
bool of_tables(const rig::OpCase& test) {
  return std::any_of(test.graph.weights.begin(), test.graph.weights.end(), [](const Weight& weight) {
    return table_format(weight.scheme) && weight.name != "identity";
  });
}

}  // namespace

TEST_CASE("every op of the cuda backend equals the reference") {
  const std::unique_ptr<Backend> cuda = cuda_backend();
  if (!cuda) return;
  const std::unique_ptr<Backend> reference = make_reference_backend();
  const uint64_t seed = fresh_seed("cuda ops");
  const std::vector<rig::OpCase> cases = rig::op_cases(seed);
  rig::Random random(seed);
  // Sanitizers make the emulator several times slower: with them every sixth case, others each time.
  const size_t step = std::getenv("TESSERA_SANITIZED") != nullptr ? 6 : 1;
  for (size_t i = seed % step; i < cases.size(); i += step) {
    const rig::OpCase& test = cases[i];
    if (of_tables(test) && random() % 4 != 0) continue;  // table_linear_test has all of them
    CAPTURE(test.name);
    CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(*cuda, test)) == "");
  }
}
