// Everything that a backend refuses, with the line that every backend must answer: what Backend and Program
// check before the backend's own code sees anything.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/op_cases.h"

namespace tessera::rig {

inline constexpr size_t kHuge = std::numeric_limits<size_t>::max();

// Two layers on a backend, compiled, with a batch of two sequences that runs.
class FaultRig {
 public:
  explicit FaultRig(Backend& backend, Random& random)
      : backend_(backend), case_(layers_case(random, Scheme::w8a8, 8)) {
    case_.pages = 3;
    case_.limits = {70, 3};
    for (const PackedTensor& weight : case_.weights)
      handles.push_back(unwrap(backend.adopt(weight.view()), "adopt"));
    kv = unwrap(backend.create_kv(case_.kv, case_.pages), "create_kv");
    plan = plan_memory(case_.graph, case_.limits);
    program = unwrap(backend.compile(case_.graph, plan, handles, *kv), "compile");
    // What the batches of the tests find in the cache.
    const std::vector<uint32_t> tokens(62, 5);
    const std::vector<uint32_t> pages = {0};
    const std::vector<BatchSequence> sequences = {{0, tokens.size(), 0, pages}};
    REQUIRE(program->run({tokens, sequences, {}}, {}).ok());
  }

  Backend& backend() { return backend_; }
  const OpCase& test() const { return case_; }
  const Graph& graph() const { return case_.graph; }
  size_t vocabulary() const { return case_.graph.tensors[case_.graph.logits].columns; }

  // The line with which compile refuses; empty when it does not.
  std::string compile(const Graph& other_graph, const MemoryPlan& other_plan,
                      std::span<const WeightHandle> other_handles, KvStorage& other_kv) {
    const auto made = backend_.compile(other_graph, other_plan, other_handles, other_kv);
    return made.ok() ? std::string() : made.error();
  }

  std::vector<WeightHandle> handles;
  std::unique_ptr<KvStorage> kv;
  MemoryPlan plan;
  std::unique_ptr<Program> program;

 private:
  Backend& backend_;
  OpCase case_;
};

// A batch of 4 tokens in two sequences, of which two rows of logits are read, to be changed into a faulty
// one.
struct FaultyBatch {
  std::vector<uint32_t> tokens = {1, 2, 3, 4};
  std::vector<uint32_t> first_pages = {0, 1};
  std::vector<uint32_t> second_pages = {2};
  std::vector<BatchSequence> sequences = {{0, 3, 62, {}}, {3, 1, 0, {}}};
  std::vector<uint32_t> outputs = {0, 3};
  std::vector<float> input;
  size_t floats = 2 * 53;
};

struct BatchFault {
  std::string line;
  std::function<void(FaultyBatch&)> change;
};

inline std::vector<BatchFault> batch_faults() {
  const auto after = [](size_t position) {
    return [position](FaultyBatch& b) { b.sequences[0].position = position; };
  };
  return {
      {"batch: at most 70 tokens were planned, found 71",
       [](FaultyBatch& b) { b.tokens.resize(71), b.sequences[1].token_count = 68; }},
      {"batch: at most 3 output rows were planned, found 4",
       [](FaultyBatch& b) {
         b.outputs = {0, 1, 2, 3};
       }},
      {"batch: expected 4 rows of 0 input values, found 72 values",
       [](FaultyBatch& b) { b.input.resize(72); }},
      {"batch: expected token ids below 53, found 53", [](FaultyBatch& b) { b.tokens[1] = 53; }},
      {"batch: sequence 1 has no tokens", [](FaultyBatch& b) { b.sequences[1].token_count = 0; }},
      {"batch: sequence 1 covers rows 2 to 3, expected to start at 3 of 4",
       [](FaultyBatch& b) { b.sequences[1].first_row = 2; }},
      {"batch: sequence 1 covers rows 3 to 5, expected to start at 3 of 4",
       [](FaultyBatch& b) { b.sequences[1].token_count = 2; }},
      {"batch: sequence 1 covers rows 3 to 2, expected to start at 3 of 4",
       [](FaultyBatch& b) { b.sequences[1].token_count = kHuge; }},
      {"batch: sequences cover 3 of 4 tokens", [](FaultyBatch& b) { b.sequences.pop_back(); }},
      {"batch: sequences cover 0 of 4 tokens", [](FaultyBatch& b) { b.sequences.clear(); }},
      {"batch: sequence 0: position 18446744073709551614 is out of range", after(kHuge - 1)},
      {"batch: sequence 0: position 18446744073709551612 is out of range", after(kHuge - 3)},
      {"batch: sequence 0: position 4294967293 is out of range", after(4294967293)},
      {"batch: sequence 0: 4294967295 tokens need 67108864 kv pages, found 2", after(4294967292)},
      {"batch: sequence 0: 129 tokens need 3 kv pages, found 2", after(126)},
      {"batch: sequence 0: 65 tokens need 2 kv pages, found 1", [](FaultyBatch& b) { b.first_pages = {0}; }},
      {"batch: sequence 1: 1 tokens need 1 kv pages, found 0", [](FaultyBatch& b) { b.second_pages = {}; }},
      {"batch: sequence 0: kv page 3 of 3 does not exist",
       [](FaultyBatch& b) {
         b.first_pages = {0, 3};
       }},
      {"batch: sequence 0: kv page 1000 of 3 does not exist",  // one that is not needed yet
       [](FaultyBatch& b) {
         b.first_pages = {0, 1, 1000};
       }},
      {"batch: output row 4 of 4 tokens does not exist",
       [](FaultyBatch& b) {
         b.outputs = {0, 4};
       }},
      {"batch: output rows are not ascending at 0",
       [](FaultyBatch& b) {
         b.outputs = {3, 0};
       }},
      {"batch: output rows are not ascending at 3",
       [](FaultyBatch& b) {
         b.outputs = {3, 3};
       }},
      {"batch: 2 logits rows of 53 do not fit 105 floats", [](FaultyBatch& b) { b.floats = 105; }},
  };
}

inline Batch view(FaultyBatch& batch) {
  if (!batch.sequences.empty()) batch.sequences[0].pages = batch.first_pages;
  if (batch.sequences.size() > 1) batch.sequences[1].pages = batch.second_pages;
  return {batch.tokens, batch.sequences, batch.outputs, batch.input};
}

// Every faulty batch is refused, and the program computes after each of them what it did before.
inline void check_batch_faults(FaultRig& rig) {
  CAPTURE(rig.backend().describe());
  Program& program = *rig.program;
  const auto run = [&](FaultyBatch batch, std::vector<float>& logits) {
    logits.assign(batch.floats, -1.0f);
    const Status status = program.run(view(batch), logits);
    return status.ok() ? std::string() : status.error();
  };
  std::vector<float> expected;
  REQUIRE(run({}, expected) == "");
  CHECK(std::all_of(expected.begin(), expected.end(), [](float x) { return std::isfinite(x); }));
  std::vector<float> logits;
  for (const BatchFault& fault : batch_faults()) {
    FaultyBatch batch;
    fault.change(batch);
    CHECK(run(batch, logits) == fault.line);
    CHECK(logits == std::vector<float>(logits.size(), -1.0f));
    REQUIRE(run({}, logits) == "");
    CHECK(logits == expected);
  }
  // Neither more room than is needed nor nothing to do is a fault.
  FaultyBatch batch;
  batch.floats += 5;
  CHECK(run(batch, logits) == "");
  CHECK(std::vector<float>(logits.begin(), logits.begin() + 106) == expected);
  CHECK(std::vector<float>(logits.begin() + 106, logits.end()) == std::vector<float>(5, -1.0f));
  batch = {};
  batch.outputs.clear();
  batch.floats = 0;
  CHECK(run(batch, logits) == "");
  CHECK(run({{}, {}, {}, {}, {}, {}, 0}, logits) == "");
}

// run_best refuses what run refuses, and a wrong number of logits.
inline void check_best_faults(FaultRig& rig) {
  CAPTURE(rig.backend().describe());
  Program& program = *rig.program;
  const size_t most = program.most_best();
  const auto run = [&](FaultyBatch batch, size_t count, size_t entries) {
    std::vector<TokenLogit> best(entries);
    const Status status = program.run_best(view(batch), count, best);
    return status.ok() ? std::string() : status.error();
  };
  for (const BatchFault& fault : batch_faults()) {
    FaultyBatch batch;
    fault.change(batch);
    if (batch.floats == FaultyBatch().floats) CHECK(run(batch, 1, 4) == fault.line);
  }
  if (most == 0) {
    for (const size_t count : {size_t{0}, size_t{1}, kHuge})
      CHECK(run({}, count, 2) == "batch: this backend gives all logits of a row, not the largest");
    return;
  }
  for (const size_t count : {size_t{0}, most + 1, kHuge}) {
    const std::string line =
        fmt::format("batch: expected 1 to {} of the largest logits of a row, found {}", most, count);
    CHECK(run({}, count, 2 * most + 2) == line);
  }
  CHECK(run({}, 3, 5) == "batch: 3 largest logits of 2 rows do not fit 5 entries");
  CHECK(run({}, 3, 6) == "");
  CHECK(run({{}, {}, {}, {}, {}, {}, 0}, 3, 0) == "");
}

// Graphs, plans, weights and caches that do not fit together.
inline void check_program_faults(FaultRig& rig) {
  CAPTURE(rig.backend().describe());
  Backend& backend = rig.backend();
  const OpCase& test = rig.test();
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *rig.kv) == "");

  Graph graph = rig.graph();
  graph.ops.pop_back();
  CHECK(rig.compile(graph, rig.plan, rig.handles, *rig.kv).find("no op writes the logits") == 0);
  graph = rig.graph();
  std::get<Embed>(graph.ops[0].kind).table = 1000;
  CHECK(rig.compile(graph, rig.plan, rig.handles, *rig.kv) ==
        "op \"embed\" (embed): weight id 1000 does not exist");

  // Weights.
  const size_t count = rig.handles.size();
  CHECK(rig.compile(rig.graph(), rig.plan, std::span(rig.handles).first(1), *rig.kv) ==
        fmt::format("expected {} weights, found 1", count));
  graph = rig.graph();
  graph.weights[0].rows += 1;
  CHECK(rig.compile(graph, rig.plan, rig.handles, *rig.kv) ==
        "weight \"table\": expected w8a8 [54, 72], found w8a8 [53, 72]");
  graph = rig.graph();
  graph.weights[0].scheme = Scheme::f32;
  CHECK(rig.compile(graph, rig.plan, rig.handles, *rig.kv) ==
        "weight \"table\": expected f32 [53, 72], found w8a8 [53, 72]");

  class ForeignWeight : public AdoptedWeight {
   public:
    using AdoptedWeight::AdoptedWeight;
  };
  const std::string not_adopted = "weight \"gain\" was not adopted by this backend";
  REQUIRE(rig.graph().weights[1].name == "gain");
  std::swap(rig.handles[0], rig.handles[1]);
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *rig.kv) ==
        "weight \"table\": expected w8a8 [53, 72], found f32 [1, 72]");
  std::swap(rig.handles[0], rig.handles[1]);
  WeightHandle gain = std::move(rig.handles[1]);
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *rig.kv) == not_adopted);
  rig.handles[1] = std::make_unique<ForeignWeight>(test.weights[1].view());
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *rig.kv) == not_adopted);
  // A matrix of one row has the dimensions of a vector but not its layout, and the other way round.
  const PackedTensor one_row = packed_matrix("gain", Scheme::f32, 1, 72, std::vector<float>(72, 1.0f));
  rig.handles[1] = unwrap(backend.adopt(one_row.view()), "adopt");
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *rig.kv) ==
        "weight \"gain\": expected rank 1, found 2");
  rig.handles[1] = std::move(gain);
  graph = rig.graph();
  const auto table = static_cast<WeightId>(graph.weights.size());
  graph.weights.push_back({"vector", Scheme::f32, 1, 72});
  std::get<Embed>(graph.ops[0].kind).table = table;
  const PackedTensor vector = packed_vector("vector", std::vector<float>(72, 1.0f));
  rig.handles.push_back(unwrap(backend.adopt(vector.view()), "adopt"));
  CHECK(rig.compile(graph, rig.plan, rig.handles, *rig.kv) == "weight \"vector\": expected rank 2, found 1");
  rig.handles.pop_back();

  // Memory plans.
  const std::string first = rig.graph().tensors[0].name;
  const auto with_plan = [&](const std::function<void(MemoryPlan&)>& change) {
    MemoryPlan plan = rig.plan;
    change(plan);
    return rig.compile(rig.graph(), plan, rig.handles, *rig.kv);
  };
  CHECK(with_plan([](MemoryPlan& p) { p.offset.pop_back(); }) == "the memory plan belongs to another graph");
  CHECK(with_plan([](MemoryPlan& p) { p.stride.pop_back(); }) == "the memory plan belongs to another graph");
  const std::string no_room = fmt::format("the memory plan has no room for tensor \"{}\"", first);
  CHECK(with_plan([](MemoryPlan& p) { p.stride[0] -= 64; }) == no_room);
  CHECK(with_plan([](MemoryPlan& p) { p.stride[0] += 4; }) == no_room);
  CHECK(with_plan([](MemoryPlan& p) { p.offset[0] += 4; }) == no_room);
  CHECK(with_plan([](MemoryPlan& p) { p.offset[0] = p.arena_bytes + 64; }) == no_room);
  CHECK(with_plan([](MemoryPlan& p) { p.limits.max_tokens += 1000; }) == no_room);
  CHECK(with_plan([](MemoryPlan& p) { p.arena_bytes -= 64; }).find("the memory plan has no room for") == 0);

  // Caches.
  class ForeignKv : public KvStorage {
   public:
    using KvStorage::KvStorage;
  };
  ForeignKv foreign(test.kv, 3);
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, foreign) ==
        "the kv cache belongs to another backend");
  const std::vector<std::pair<KvGeometry, std::string>> misfits = {
      {{0, 2, 24, 8, 0}, "layer 0 with 2 kv heads of 24 does not fit a kv cache of 0 layers, 2 heads of 24"},
      {{1, 2, 24, 8, 0}, "layer 1 with 2 kv heads of 24 does not fit a kv cache of 1 layers, 2 heads of 24"},
      {{2, 1, 24, 8, 0}, "layer 0 with 2 kv heads of 24 does not fit a kv cache of 2 layers, 1 heads of 24"},
      {{2, 2, 16, 8, 0}, "layer 0 with 2 kv heads of 24 does not fit a kv cache of 2 layers, 2 heads of 16"},
  };
  for (const auto& [geometry, line] : misfits) {
    const std::unique_ptr<KvStorage> kv = unwrap(backend.create_kv(geometry, 2), "create_kv");
    CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *kv) == "op \"attention\": " + line);
  }
  KvGeometry windows = test.kv;
  windows.slides = {false, true};
  windows.window_pages = 1;
  const std::unique_ptr<KvStorage> kv = unwrap(backend.create_kv(windows, 2), "create_kv");
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *kv) ==
        "op \"attention\": layer 1 sees every token, and its kv pages are those of a window");
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *rig.kv) == "");
}

// What another backend of the same kind made is refused like that of a different kind.
inline void check_foreign_faults(FaultRig& rig, FaultRig& other) {
  CAPTURE(rig.backend().describe());
  CHECK(rig.compile(rig.graph(), rig.plan, other.handles, *rig.kv) ==
        "weight \"table\" was not adopted by this backend");
  CHECK(rig.compile(rig.graph(), rig.plan, rig.handles, *other.kv) ==
        "the kv cache belongs to another backend");
}

// Tensors and cache geometries that cannot be.
inline void check_storage_faults(Backend& backend, Random& random) {
  CAPTURE(backend.describe());
  const auto adopt = [&](const StoredTensor& tensor) {
    const auto made = backend.adopt(tensor);
    return made.ok() ? std::string() : made.error();
  };
  const PackedTensor matrix = random_matrix(random, "w", Scheme::w4a8, 17, 100);
  const StoredTensor whole = matrix.view();
  CHECK(adopt(whole) == "");
  StoredTensor view = whole;
  view.bytes = view.bytes.first(view.bytes.size() - 1);
  CHECK(adopt(view) ==
        fmt::format("tensor \"w\": expected {} bytes, found {}", whole.bytes.size(), whole.bytes.size() - 1));
  const std::string no_shape = fmt::format("tensor \"w\": expected 0 bytes, found {}", whole.bytes.size());
  for (const std::vector<uint64_t>& shape :
       {std::vector<uint64_t>{}, {0, 100}, {17, 0}, {0}, {1, 17, 100}, {kHuge, kHuge}}) {
    view = whole;
    view.shape = shape;
    CHECK(adopt(view) == no_shape);
  }
  const std::vector<std::byte> words(8);
  CHECK(adopt({"ids", Scheme::u32, {1, 2}, words}) == "tensor \"ids\": expected weights, found scheme u32");
  CHECK(adopt({"order", Scheme::u32, {2}, words}) ==
        "tensor \"order\": entry 1: expected every column once, found 0 again");
  CHECK(adopt({"order", Scheme::u32, {3}, words}) == "tensor \"order\": expected 12 bytes, found 8");
  CHECK(adopt({"order", Scheme::u32, {1}, std::span(words).first(4)}) == "");
  CHECK(adopt({"ids", Scheme::u8, {8}, words}) == "tensor \"ids\": expected weights, found scheme u8");

  const auto create = [&](const KvGeometry& geometry, size_t pages) {
    const auto made = backend.create_kv(geometry, pages);
    return made.ok() ? std::string() : made.error();
  };
  CHECK(create({2, 3, 16, 4, 1}, 5) == "");
  CHECK(create({0, 3, 16, 4, 0}, 5) == "");
  CHECK(create({2, 3, 16, 4, 1}, 0) == "");
  CHECK(create({1, 1, 8, 5, 0}, 1) == "kv cache: expected 4, 8 or 16 bits, found 5");
  CHECK(create({1, 1, 12, 8, 0}, 1) == "kv cache: expected a head size that is a multiple of 8, found 12");
  CHECK(create({1, 1, 0, 8, 0}, 1) == "kv cache: expected a head size that is a multiple of 8, found 0");
  CHECK(create({1, 0, 8, 8, 0}, 1) == "kv cache: expected at least 1 kv head, found 0");
  for (const KvGeometry& geometry :
       {KvGeometry{kHuge, 1, 8, 8, 0}, {1, kHuge, 8, 8, 0}, {kHuge / 8, kHuge / 8, 8, 8, 0}})
    CHECK(create(geometry, 1) == fmt::format("kv cache: {} layers of {} heads of 8 exceed the address space",
                                             geometry.layers, geometry.kv_heads));
  const KvGeometry small{2, 1, 8, 8, 0};
  CHECK(create(small, kHuge / 4) == fmt::format("kv cache: {} pages of {} bytes exceed the address space",
                                                kHuge / 4, backend.kv_page_bytes(small).full));
}

// All of the above. Both backends are of one kind.
inline void check_all_faults(Backend& backend, Backend& other, Random& random) {
  FaultRig rig(backend, random);
  check_batch_faults(rig);
  check_best_faults(rig);
  check_program_faults(rig);
  FaultRig second(other, random);
  check_foreign_faults(rig, second);
  check_storage_faults(backend, random);
}

}  // namespace tessera::rig
