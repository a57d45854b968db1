// The reference backend as a backend: neither batching nor buffer reuse changes results.
#include "backends/reference/reference_backend.h"

#include <doctest/doctest.h>

#include <iostream>

#include "tests/unit/op_cases.h"

using namespace tessera;

namespace {

uint64_t fresh_seed() {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return seed;
}

// Every tensor in bytes of its own.
MemoryPlan plan_without_reuse(const Graph& graph, const PlanLimits& limits) {
  MemoryPlan plan;
  plan.limits = limits;
  for (const Tensor& tensor : graph.tensors) {
    plan.offset.push_back(plan.arena_bytes);
    plan.stride.push_back(row_stride(tensor));
    const size_t rows = tensor.rows == RowExtent::outputs ? limits.max_outputs : limits.max_tokens;
    plan.arena_bytes += rows * plan.stride.back();
  }
  return plan;
}

}  // namespace

TEST_CASE("the shared cases run, repeat exactly, and do not depend on buffer reuse") {
  const uint64_t seed = fresh_seed();
  const std::unique_ptr<Backend> backend = make_reference_backend();
  size_t smaller = 0;
  for (const rig::OpCase& test : rig::op_cases(seed)) {
    CAPTURE(test.name);
    REQUIRE(check_graph(test.graph) == "");
    const std::vector<float> planned = rig::run_case(*backend, test);
    const MemoryPlan roomy = plan_without_reuse(test.graph, test.limits);
    REQUIRE(planned == rig::run_case(*backend, test, roomy));
    CHECK(rig::difference(test, planned, planned) == "");
    if (plan_memory(test.graph, test.limits).arena_bytes < roomy.arena_bytes) ++smaller;
  }
  CHECK(smaller > 100);
}

TEST_CASE("the comparison used for all backends notices what it should") {
  rig::Random random(fresh_seed());
  rig::OpCase test = rig::gate_case(random, 8, ElementType::f32);
  const std::vector<float> expected = {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0};
  const auto changed = [&](size_t place, float value) {
    std::vector<float> got = expected;
    got[place] = value;
    return rig::difference(test, expected, got);
  };
  test.bound = {0.01, 1};
  CHECK(rig::difference(test, expected, expected) == "");
  CHECK(changed(2, 3.07f) == "");
  CHECK(changed(2, 3.09f).find("row 0, column 2") != std::string::npos);
  CHECK(changed(9, 1e-6f).find("row 1, column 1") != std::string::npos);  // the row is zero
  CHECK(changed(15, std::numeric_limits<float>::quiet_NaN()).find("not finite") != std::string::npos);
  CHECK(rig::difference(test, expected, std::span(expected).first(8)).find("16 results") !=
        std::string::npos);
  test.bound = rig::kExact;
  CHECK(changed(0, std::nextafter(1.0f, 2.0f)) != "");
  test.bound = {0.1, 0.001};
  CHECK(changed(0, 1.7f) == "");
  std::vector<float> all = expected;
  for (size_t i = 0; i < 8; ++i) all[i] += 0.7f;
  CHECK(rig::difference(test, expected, all).find("root mean square") != std::string::npos);
}

TEST_CASE("sequences give the same rows alone, batched and in chunks") {
  rig::Random random(fresh_seed());
  for (const Scheme scheme : {Scheme::f32, Scheme::w4a8_g128}) {
    for (const unsigned bits : {16u, 4u}) {
      rig::OpCase test = rig::layers_case(random, scheme, bits);
      const size_t columns = test.graph.tensors[test.graph.logits].columns;
      constexpr size_t kLengths[] = {90, 1, 33};
      std::vector<std::vector<uint32_t>> tokens;
      for (const size_t length : kLengths) {
        tokens.emplace_back();
        for (size_t i = 0; i < length; ++i)
          tokens.back().push_back(static_cast<uint32_t>(rig::pick(random, 0, 52)));
      }
      const std::vector<std::vector<uint32_t>> pages = {{4, 1}, {0, 5}, {3, 2}};
      test.pages = 6;
      test.limits = {124, 124};
      const std::unique_ptr<Backend> backend = make_reference_backend();
      const auto whole = [&](size_t s) { return rig::CaseSequence{tokens[s].size(), 0, pages[s]}; };
      const auto all_rows = [](rig::CaseRun run) {
        for (uint32_t row = 0; row < run.tokens.size(); ++row) run.output_rows.push_back(row);
        return run;
      };
      // Together.
      rig::CaseRun together;
      for (size_t s = 0; s < tokens.size(); ++s) {
        together.sequences.push_back(whole(s));
        together.tokens.insert(together.tokens.end(), tokens[s].begin(), tokens[s].end());
      }
      test.runs = {all_rows(together)};
      const std::vector<float> batched = rig::run_case(*backend, test);
      REQUIRE(batched.size() == 124 * columns);
      // Alone, one after another.
      test.runs.clear();
      for (size_t s = 0; s < tokens.size(); ++s) test.runs.push_back(all_rows({tokens[s], {whole(s)}, {}}));
      CHECK(rig::run_case(*backend, test) == batched);
      // In chunks, of any size.
      test.runs.clear();
      for (size_t s = 0; s < tokens.size(); ++s) {
        for (size_t at = 0; at < tokens[s].size();) {
          const size_t count = std::min(tokens[s].size() - at, rig::pick(random, 1, 40));
          const auto first = tokens[s].begin() + static_cast<std::ptrdiff_t>(at);
          test.runs.push_back(
              all_rows({{first, first + static_cast<std::ptrdiff_t>(count)}, {{count, at, pages[s]}}, {}}));
          at += count;
        }
      }
      CHECK(rig::run_case(*backend, test) == batched);
    }
  }
}
