// The reference backend as a backend: what it refuses, and that neither batching nor buffer reuse changes
// results.
#include "backends/reference/reference_backend.h"

#include <doctest/doctest.h>

#include <functional>
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

struct Compiled {
  std::unique_ptr<Backend> backend = make_reference_backend();
  std::vector<WeightHandle> handles;
  std::unique_ptr<KvStorage> kv;
  std::unique_ptr<Program> program;

  explicit Compiled(const rig::OpCase& test) {
    for (const rig::PackedTensor& weight : test.weights)
      handles.push_back(rig::unwrap(backend->adopt(weight.view()), "adopt"));
    kv = rig::unwrap(backend->create_kv(test.kv, test.pages), "create_kv");
    program = rig::unwrap(backend->compile(test.graph, plan_memory(test.graph, test.limits), handles, *kv),
                          "compile");
  }
};

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

TEST_CASE("batches beyond the plan, the cache or the vocabulary are refused, and the program stays usable") {
  rig::Random random(fresh_seed());
  rig::OpCase test = rig::attention_case(random, {2, 1, 8, 16, 1, 0, 1, 4});
  test.pages = 3;
  test.limits = {70, 3};
  Compiled compiled(test);
  const size_t columns = test.graph.tensors[test.graph.logits].columns;
  const uint32_t vocabulary = static_cast<uint32_t>(test.weights[0].rows());

  struct Try {
    std::vector<uint32_t> tokens = {1, 2, 3, 4};
    std::vector<uint32_t> first_pages = {0, 1};
    std::vector<uint32_t> second_pages = {2};
    std::vector<BatchSequence> sequences = {{0, 3, 62, {}}, {3, 1, 0, {}}};
    std::vector<uint32_t> outputs = {0, 3};
    size_t floats = 0;
  };
  const auto run = [&](const std::function<void(Try&)>& change) {
    Try attempt;
    attempt.floats = 2 * columns;
    change(attempt);
    if (!attempt.sequences.empty()) attempt.sequences[0].pages = attempt.first_pages;
    if (attempt.sequences.size() > 1) attempt.sequences[1].pages = attempt.second_pages;
    std::vector<float> logits(attempt.floats);
    const Status status = compiled.program->run({attempt.tokens, attempt.sequences, attempt.outputs}, logits);
    return status.ok() ? std::string() : status.error();
  };
  const std::vector<std::pair<const char*, std::function<void(Try&)>>> faults = {
      {"below 41, found 41", [&](Try& t) { t.tokens[1] = vocabulary; }},
      {"at most 70 tokens", [](Try& t) { t.tokens.resize(71), t.sequences[1].token_count = 68; }},
      {"at most 3 output rows",
       [](Try& t) {
         t.outputs = {0, 1, 2, 3};
       }},
      {"need 2 kv pages, found 1", [](Try& t) { t.first_pages = {0}; }},
      {"need 1 kv pages, found 0", [](Try& t) { t.second_pages = {}; }},
      {"kv page 3 of 3",
       [](Try& t) {
         t.first_pages = {0, 3};
       }},
      {"out of range", [](Try& t) { t.sequences[0].position = std::numeric_limits<size_t>::max() - 1; }},
      {"kv pages", [](Try& t) { t.sequences[0].position = std::numeric_limits<size_t>::max() - 3; }},
      {"has no tokens", [](Try& t) { t.sequences[1].token_count = 0; }},
      {"expected to start at 3", [](Try& t) { t.sequences[1].first_row = 2; }},
      {"covers rows", [](Try& t) { t.sequences[1].token_count = 2; }},
      {"covers rows", [](Try& t) { t.sequences[1].token_count = std::numeric_limits<size_t>::max(); }},
      {"cover 3 of 4", [](Try& t) { t.sequences.pop_back(); }},
      {"cover 0 of 4", [](Try& t) { t.sequences.clear(); }},
      {"output row 4",
       [](Try& t) {
         t.outputs = {0, 4};
       }},
      {"not ascending",
       [](Try& t) {
         t.outputs = {3, 0};
       }},
      {"not ascending",
       [](Try& t) {
         t.outputs = {3, 3};
       }},
      {"do not fit", [&](Try& t) { t.floats = 2 * columns - 1; }},
  };
  for (const auto& fault : faults) {
    const char* says = fault.first;
    const std::string line = run(fault.second);
    CAPTURE(line);
    CAPTURE(says);
    CHECK(line.find(says) != std::string::npos);
    CHECK(line.find('\n') == std::string::npos);
    CHECK(run([](Try&) {}) == "");
  }
  CHECK(run([](Try& t) { t.outputs.clear(), t.floats = 0; }) == "");
  CHECK(run([](Try& t) { t = Try{{}, {}, {}, {}, {}, 0}; }) == "");
}

TEST_CASE("programs that cannot work are refused when they are compiled") {
  rig::Random random(fresh_seed());
  const rig::OpCase test = rig::attention_case(random, {2, 1, 8, 8, 1, 0, 1, 4});
  Compiled compiled(test);
  Backend& backend = *compiled.backend;
  const MemoryPlan plan = plan_memory(test.graph, test.limits);
  const auto compile = [&](const Graph& graph, const MemoryPlan& memory,
                           std::span<const WeightHandle> handles, KvStorage& kv) {
    Result<std::unique_ptr<Program>> result = backend.compile(graph, memory, handles, kv);
    return result.ok() ? std::string() : result.error();
  };
  CHECK(compile(test.graph, plan, compiled.handles, *compiled.kv) == "");

  Graph unsound = test.graph;
  unsound.ops.pop_back();
  CHECK(compile(unsound, plan, compiled.handles, *compiled.kv).find("no op writes") != std::string::npos);
  CHECK(compile(test.graph, plan, std::span(compiled.handles).first(1), *compiled.kv).find("weights") !=
        std::string::npos);

  Graph other_shape = test.graph;
  other_shape.weights[0].rows += 1;
  CHECK(compile(other_shape, plan, compiled.handles, *compiled.kv).find("\"x\"") != std::string::npos);

  class Foreign : public AdoptedWeight {};
  class ForeignKv : public KvStorage {};
  ForeignKv foreign_kv;
  CHECK(compile(test.graph, plan, compiled.handles, foreign_kv).find("kv cache") != std::string::npos);
  std::vector<WeightHandle> handles;
  for (const rig::PackedTensor& weight : test.weights)
    handles.push_back(rig::unwrap(backend.adopt(weight.view()), "adopt"));
  handles[1] = nullptr;
  CHECK(compile(test.graph, plan, handles, *compiled.kv).find("not adopted") != std::string::npos);
  handles[1] = std::make_unique<Foreign>();
  CHECK(compile(test.graph, plan, handles, *compiled.kv).find("not adopted") != std::string::npos);

  // A matrix of one row has the dimensions of a vector but not its layout.
  const rig::PackedTensor& gain = test.weights.back();
  REQUIRE(gain.shape.size() == 1);
  const rig::PackedTensor one_row =
      rig::packed_matrix("ones", Scheme::f32, 1, gain.columns(), std::vector<float>(gain.columns(), 1.0f));
  handles[1] = rig::unwrap(backend.adopt(test.weights[1].view()), "adopt");
  handles.back() = rig::unwrap(backend.adopt(one_row.view()), "adopt");
  CHECK(compile(test.graph, plan, handles, *compiled.kv).find("rank") != std::string::npos);

  const auto bad_plan = [&](const std::function<void(MemoryPlan&)>& change) {
    MemoryPlan memory = plan;
    change(memory);
    return compile(test.graph, memory, compiled.handles, *compiled.kv);
  };
  CHECK(bad_plan([](MemoryPlan& p) { p.offset.pop_back(); }).find("plan") != std::string::npos);
  CHECK(bad_plan([](MemoryPlan& p) { p.arena_bytes -= 64; }).find("no room") != std::string::npos);
  CHECK(bad_plan([](MemoryPlan& p) { p.limits.max_tokens += 1000; }).find("no room") != std::string::npos);
  CHECK(bad_plan([](MemoryPlan& p) { p.stride[0] -= 64; }).find("no room") != std::string::npos);
  CHECK(bad_plan([](MemoryPlan& p) { p.offset[0] += 4; }).find("no room") != std::string::npos);

  const std::vector<KvGeometry> misfits = {{0, 1, 8, 8, 0}, {1, 2, 8, 8, 0}, {1, 1, 16, 8, 0}};
  for (const KvGeometry& geometry : misfits) {
    const std::unique_ptr<KvStorage> kv = rig::unwrap(backend.create_kv(geometry, 2), "create_kv");
    CHECK(compile(test.graph, plan, compiled.handles, *kv).find("does not fit a kv cache") !=
          std::string::npos);
  }
}

TEST_CASE("weights and caches that cannot be are refused") {
  const std::unique_ptr<Backend> backend = make_reference_backend();
  rig::Random random(fresh_seed());
  const rig::PackedTensor matrix = rig::random_matrix(random, "w", Scheme::w4a8, 17, 100);
  StoredTensor view = matrix.view();
  CHECK(backend->adopt(view).ok());
  view.bytes = view.bytes.first(view.bytes.size() - 1);
  CHECK(backend->adopt(view).error().find("\"w\"") != std::string::npos);
  view = matrix.view();
  view.shape = {};
  CHECK(!backend->adopt(view).ok());
  view.shape = {0, 100};
  CHECK(!backend->adopt(view).ok());
  const std::vector<std::byte> words(8);
  CHECK(backend->adopt({"ids", Scheme::u32, {2}, words}).error().find("u32") != std::string::npos);

  constexpr size_t kHuge = std::numeric_limits<size_t>::max();
  CHECK(backend->create_kv({2, 3, 16, 4, 1}, 5).ok());
  CHECK(backend->create_kv({0, 3, 16, 4, 0}, 5).ok());
  CHECK(backend->kv_page_bytes({2, 3, 16, 4, 1}) == 2 * 3 * 16 * 64 * 2 * sizeof(double));
  const std::vector<KvGeometry> faults = {{1, 1, 8, 5, 0},
                                          {1, 1, 12, 8, 0},
                                          {1, 1, 0, 8, 0},
                                          {1, 0, 8, 8, 0},
                                          {kHuge, 1, 8, 8, 0},
                                          {1, kHuge, 8, 8, 0},
                                          {kHuge / 8, kHuge / 8, 8, 8, 0}};
  for (const KvGeometry& geometry : faults) CHECK(!backend->create_kv(geometry, 1).ok());
  CHECK(backend->create_kv({1, 1, 8, 8, 0}, kHuge / 4).error().find("no memory") != std::string::npos);
}
