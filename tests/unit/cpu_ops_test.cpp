// Every op of the cpu backend against the reference backend, for each instruction set of this machine and
// several thread counts, on fresh random inputs at odd sizes.
#include <doctest/doctest.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

TEST_CASE("every op of the cpu backend equals the reference") {
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const std::string_view isa : usable_instruction_sets()) {
    for (const size_t threads : {size_t{1}, size_t{2}, size_t{5}}) {
      auto made = make_cpu_backend({std::string(isa), threads});
      REQUIRE(made.ok());
      Backend& cpu = *made.value();
      const std::vector<rig::OpCase> cases = rig::op_cases(seed + threads);
      // Sanitizers make this the longest of all tests: with them every fifth case, others each time.
      const size_t step = std::getenv("TESSERA_SANITIZED") != nullptr ? 5 : 1;
      for (size_t i = (seed + threads) % step; i < cases.size(); i += step) {
        const rig::OpCase& test = cases[i];
        CAPTURE(test.name);
        CAPTURE(cpu.describe());
        CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(cpu, test)) == "");
      }
    }
  }
}

TEST_CASE("attention over several chunks of keys does not depend on how tokens and threads share it") {
  constexpr size_t kBefore = 2200;
  constexpr size_t kAfter = 3;
  rig::Random random(std::random_device{}());
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const unsigned bits : {16u, 8u, 4u}) {
    rig::OpCase whole = rig::attention_case(random, {4, 2, 16, bits, 1, 0, 1, 1});
    const uint32_t vocabulary = static_cast<uint32_t>(whole.weights.front().rows());
    const size_t pages = (kBefore + kAfter) / kKvPageTokens + 1;
    whole.pages = pages;
    std::vector<uint32_t> tokens(kBefore + kAfter);
    for (uint32_t& token : tokens) token = static_cast<uint32_t>(rig::pick(random, 0, vocabulary - 1));
    std::vector<uint32_t> ids(pages);
    std::iota(ids.rbegin(), ids.rend(), 0u);
    rig::OpCase one_by_one = whole;
    whole.runs = {{tokens, {{tokens.size(), 0, ids}}, {kBefore, kBefore + 1, kBefore + 2}}};
    whole.limits = {tokens.size(), kAfter};
    one_by_one.limits = {kBefore, 1};
    one_by_one.runs = {{{tokens.begin(), tokens.begin() + kBefore}, {{kBefore, 0, ids}}, {0}}};
    for (size_t i = 0; i < kAfter; ++i)
      one_by_one.runs.push_back({{tokens[kBefore + i]}, {{1, kBefore + i, ids}}, {0}});
    const std::vector<float> exact = rig::run_case(*reference, whole);
    for (const std::string_view isa : usable_instruction_sets()) {
      std::vector<float> first;
      for (const size_t threads : {size_t{1}, size_t{2}, size_t{5}}) {
        auto made = make_cpu_backend({std::string(isa), threads});
        REQUIRE(made.ok());
        CAPTURE(bits);
        CAPTURE(made.value()->describe());
        const std::vector<float> at_once = rig::run_case(*made.value(), whole);
        const std::vector<float> single = rig::run_case(*made.value(), one_by_one);
        if (first.empty()) first = at_once;
        CHECK(rig::difference(whole, exact, at_once) == "");
        CHECK(at_once == first);
        const size_t columns = first.size() / kAfter;
        CHECK(std::vector<float>(single.begin() + static_cast<std::ptrdiff_t>(columns), single.end()) ==
              first);
      }
    }
  }
}

TEST_CASE("an instruction set the machine lacks is refused by name") {
  auto made = make_cpu_backend({"sse9", 1});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().find("sse9") != std::string::npos);
}
