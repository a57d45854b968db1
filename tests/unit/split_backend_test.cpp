// Graphs that are cut in two, and a backend made of two: together they compute what one would, bit for bit
// where both parts run on the same kind.
#include "backends/split/split_backend.h"

#include <doctest/doctest.h>

#include <iostream>
#include <memory>
#include <random>
#include <string>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "graph/split_graph.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

namespace {

rig::Random seeded(const char* what) {
  const uint64_t seed = std::random_device{}();
  std::cout << what << ": seed " << seed << "\n";
  return rig::Random(seed);
}

std::unique_ptr<Backend> cpu() {
  CpuBackendOptions options;
  options.threads = 2;
  return rig::unwrap(make_cpu_backend(options), "cpu");
}

std::string refusal(Backend& backend, const rig::OpCase& test) {
  try {
    rig::run_case(backend, test);
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("both parts of a graph are sound and have each op once") {
  rig::Random random = seeded("split graphs");
  for (const Scheme scheme : {Scheme::f32, Scheme::w4a8_g128}) {
    const rig::OpCase whole = rig::layers_case(random, scheme, 8);
    const std::optional<SplitGraph> parts = split_graph(whole.graph, 1);
    REQUIRE(parts);
    CHECK(check_graph(parts->first.graph) == "");
    CHECK(check_graph(parts->second.graph) == "");
    CHECK(input_columns(parts->first.graph) == 0);
    CHECK(input_columns(parts->second.graph) == 72);
    // The norm at the cut is in both, and the second has the input.
    CHECK(parts->first.graph.ops.size() + parts->second.graph.ops.size() == whole.graph.ops.size() + 2);
    CHECK(parts->first.weights.size() + parts->second.weights.size() == whole.graph.weights.size() + 1);
    for (const GraphPart* part : {&parts->first, &parts->second}) {
      REQUIRE(part->weights.size() == part->graph.weights.size());
      for (size_t id = 0; id < part->weights.size(); ++id)
        CHECK(part->graph.weights[id].rows == whole.graph.weights[part->weights[id]].rows);
    }
    CHECK_FALSE(split_graph(whole.graph, 0));
    CHECK_FALSE(split_graph(whole.graph, 2));
    // Something that skips the cut cannot be handed over.
    Graph skipped = whole.graph;
    for (Op& op : skipped.ops) {
      const auto* norm = std::get_if<Norm>(&op.kind);
      if (norm != nullptr && norm->select_rows) op.inputs[1] = skipped.ops.front().outputs[0];
    }
    REQUIRE(check_graph(skipped) == "");
    CHECK_FALSE(split_graph(skipped, 1));
  }
}

TEST_CASE("a backend made of two computes what one does") {
  rig::Random random = seeded("split backend");
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const Scheme scheme : {Scheme::f32, Scheme::w8a8, Scheme::w4a8_g128}) {
    for (const unsigned bits : {16u, 4u}) {
      rig::OpCase test = rig::layers_case(random, scheme, bits);
      test.kv.first_layers_16bit = rig::pick(random, 0, 2);
      CAPTURE(test.name);
      const std::vector<float> expected = rig::run_case(*reference, test);
      CHECK(rig::run_case(*make_split_backend(make_reference_backend(), make_reference_backend(), 1), test) ==
            expected);
      CHECK(rig::run_case(*make_split_backend(cpu(), cpu(), 1), test) == rig::run_case(*cpu(), test));
      for (const bool cpu_first : {true, false}) {
        const auto both = make_split_backend(cpu_first ? cpu() : make_reference_backend(),
                                             cpu_first ? make_reference_backend() : cpu(), 1);
        CHECK(rig::difference(test, expected, rig::run_case(*both, test)) == "");
      }
    }
  }
}

TEST_CASE("what a split backend cannot do is refused in one line") {
  rig::Random random = seeded("split refusals");
  const rig::OpCase test = rig::layers_case(random, Scheme::w8a8, 8);
  const auto at = [&](size_t layers) { return make_split_backend(make_reference_backend(), cpu(), layers); };
  CHECK(refusal(*at(1), test) == "");
  CHECK(refusal(*at(0), test).find("the graph cannot be split before layer 0") != std::string::npos);
  CHECK(refusal(*at(2), test).find("the graph cannot be split before layer 2") != std::string::npos);
  rig::OpCase bad = test;
  bad.runs[0].tokens[0] = 1000;
  CHECK(refusal(*at(1), bad).find("found 1000") != std::string::npos);
  bad = test;
  bad.limits.max_tokens = 0;
  CHECK(refusal(*at(1), bad).find("at most 0 tokens were planned") != std::string::npos);
  CHECK(at(1)->describe().find("1 layers on reference") == 0);
}

TEST_CASE("rows that a batch brings have to fit the graph's input op") {
  rig::Random random = seeded("input rows");
  const rig::OpCase whole = rig::layers_case(random, Scheme::f32, 16);
  const std::optional<SplitGraph> parts = split_graph(whole.graph, 1);
  REQUIRE(parts);
  for (const bool on_cpu : {false, true}) {
    const std::unique_ptr<Backend> backend = on_cpu ? cpu() : make_reference_backend();
    std::vector<WeightHandle> handles;
    for (const WeightId id : parts->second.weights)
      handles.push_back(rig::unwrap(backend->adopt(whole.weights[id].view()), "adopt"));
    const auto kv = rig::unwrap(backend->create_kv(other_layers(whole.kv, 1), 1), "create_kv");
    const PlanLimits limits{2, 2};
    const auto program = rig::unwrap(
        backend->compile(parts->second.graph, plan_memory(parts->second.graph, limits), handles, *kv),
        "compile");
    const std::vector<uint32_t> tokens = {1, 1};
    const std::vector<uint32_t> pages = {0};
    const std::vector<BatchSequence> sequences = {{0, 2, 0, pages}};
    std::vector<float> logits(2 * 53);
    const std::vector<float> rows(2 * 72, 0.5f);
    for (const size_t values : {size_t{0}, size_t{72}, size_t{143}, size_t{144}}) {
      const Batch batch{tokens, sequences, {tokens.data(), 0}, std::span(rows).first(values)};
      CHECK(program->run(batch, logits).ok() == (values == 144));
    }
  }
}
