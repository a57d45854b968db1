// The whole CUDA backend, op by op, against the reference backend, with fresh random inputs at odd sizes: on
// the emulator, and on a device where the build has one.
#include <doctest/doctest.h>

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

// What the case needs that the backend has no kernels for; empty when it has all.
std::string missing(const rig::OpCase& test) {
  for (const Weight& weight : test.graph.weights) {
    if (table_format(weight.scheme))
      return "no kernels for scheme " + std::string(scheme_name(weight.scheme));
  }
  for (const Tensor& tensor : test.graph.tensors) {
    if (tensor.type == ElementType::bf16) return "rows of f32 and q8 only";
  }
  return {};
}

// The line with which a case is refused; empty when it runs.
std::string refusal(Backend& backend, const rig::OpCase& test) {
  try {
    rig::run_case(backend, test);
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("every op of the cuda backend equals the reference") {
  const std::unique_ptr<Backend> cuda = cuda_backend();
  if (!cuda) return;
  const std::unique_ptr<Backend> reference = make_reference_backend();
  const uint64_t seed = fresh_seed("cuda ops");
  const std::vector<rig::OpCase> cases = rig::op_cases(seed);
  // Sanitizers make the emulator several times slower: with them every sixth case, others each time.
  const size_t step = std::getenv("TESSERA_SANITIZED") != nullptr ? 6 : 1;
  for (size_t i = seed % step; i < cases.size(); i += step) {
    const rig::OpCase& test = cases[i];
    CAPTURE(test.name);
    if (const std::string what = missing(test); !what.empty()) {
      CHECK(refusal(*cuda, test).find(what) != std::string::npos);
      continue;
    }
    CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(*cuda, test)) == "");
  }
}
