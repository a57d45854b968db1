// Random graphs: tensors that live at the same time never share bytes, and the arena stays near the most that
// lives at once.
#include "graph/memory_plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>

#include "graph/q8_row.h"

using namespace tessera;

namespace {

using Random = std::mt19937_64;

size_t pick(Random& random, size_t low, size_t high) {
  return std::uniform_int_distribution<size_t>(low, high)(random);
}

// Appends ops of all kinds that read random earlier tensors, so that lifetimes vary from one op to the whole
// graph. Weights are shared where shapes allow.
class RandomGraph {
 public:
  explicit RandomGraph(Random& random) : random_(random) {}

  Graph make(size_t ops) {
    embed();
    while (graph_.ops.size() < ops) step();
    // A result that outlives the run, made in the middle as often as at the end.
    graph_.logits = norm(any(RowExtent::tokens), true);
    const size_t after = pick(random_, 0, ops / 2);
    for (size_t i = 0; i < after; ++i) step();
    return graph_;
  }

 private:
  WeightId weight(Scheme scheme, size_t rows, size_t columns) {
    graph_.weights.push_back({"w" + std::to_string(graph_.weights.size()), scheme, rows, columns});
    return static_cast<WeightId>(graph_.weights.size() - 1);
  }
  TensorId add(OpKind kind, std::vector<TensorId> inputs, RowExtent rows, size_t columns, ElementType type) {
    const TensorId id = static_cast<TensorId>(graph_.tensors.size());
    graph_.tensors.push_back({"t" + std::to_string(id), rows, columns, type});
    graph_.ops.push_back(
        {"op" + std::to_string(graph_.ops.size()), std::move(kind), std::move(inputs), {id}});
    return id;
  }
  // Recent tensors are read more often than old ones.
  TensorId any(RowExtent rows) {
    for (;;) {
      const size_t back = std::min(graph_.tensors.size(), pick(random_, 1, pick(random_, 1, 30)));
      const TensorId id = static_cast<TensorId>(graph_.tensors.size() - back);
      const Tensor& tensor = graph_.tensors[id];
      if (tensor.type == ElementType::f32 && tensor.rows == rows) return id;
      if (pick(random_, 0, 50) == 0) embed();
    }
  }
  void embed() {
    const size_t columns = 8 * pick(random_, 1, 200);
    add(Embed{weight(Scheme::f16, 10, columns)}, {}, RowExtent::tokens, columns, ElementType::f32);
  }
  TensorId norm(TensorId x, bool select) {
    const size_t columns = graph_.tensors[x].columns;
    const RowExtent rows = select ? RowExtent::outputs : graph_.tensors[x].rows;
    return add(Norm{weight(Scheme::f32, 1, columns), 1e-5f, select}, {x}, rows, columns, ElementType::f32);
  }
  void step() {
    const TensorId x = any(RowExtent::tokens);
    const size_t columns = graph_.tensors[x].columns;
    switch (pick(random_, 0, 6)) {
      case 0: {
        const TensorId y = norm(x, false);
        graph_.ops.back().inputs.push_back(x);  // x + x, with its sum
        graph_.ops.back().outputs.push_back(static_cast<TensorId>(graph_.tensors.size()));
        graph_.tensors.push_back(
            {graph_.tensors[y].name + ".sum", RowExtent::tokens, columns, ElementType::f32});
        break;
      }
      case 1: {
        const size_t rows = 8 * pick(random_, 1, 300);
        add(Linear{{{weight(Scheme::f32, rows, columns), {}}}}, {x}, RowExtent::tokens, rows,
            ElementType::f32);
        break;
      }
      case 2:
      case 3:
        add(Rope{1, 8, {1.0, 0.5}}, {x}, RowExtent::tokens, columns, ElementType::f32);
        break;
      case 4:
        if (columns % 16 == 0) add(Gate{}, {x}, RowExtent::tokens, columns / 2, ElementType::f32);
        break;
      case 5:
        add(Quantize{}, {x}, RowExtent::tokens, columns, ElementType::q8);
        break;
      default:
        norm(x, true);
        break;
    }
  }

  Random& random_;
  Graph graph_;
};

struct Extent {
  size_t begin;
  size_t end;
};

Extent extent_of(const Graph& graph, const MemoryPlan& plan, TensorId id) {
  const size_t rows =
      graph.tensors[id].rows == RowExtent::outputs ? plan.limits.max_outputs : plan.limits.max_tokens;
  return {plan.offset[id], plan.offset[id] + rows * plan.stride[id]};
}

bool is_read_from(const Graph& graph, TensorId id, size_t op) {
  if (id == graph.logits) return true;
  for (size_t later = op; later < graph.ops.size(); ++later) {
    const std::vector<TensorId>& inputs = graph.ops[later].inputs;
    if (std::find(inputs.begin(), inputs.end(), id) != inputs.end()) return true;
  }
  return false;
}

// Plays the graph op by op and keeps the set of tensors whose content still matters; returns the first fault.
// most_alive receives the largest number of bytes that had to exist at once.
std::string play(const Graph& graph, const MemoryPlan& plan, size_t& most_alive) {
  std::vector<TensorId> alive;
  most_alive = 0;
  for (size_t index = 0; index < graph.ops.size(); ++index) {
    const Op& op = graph.ops[index];
    for (const TensorId out : op.outputs) {
      const Extent written = extent_of(graph, plan, out);
      if (written.end > plan.arena_bytes) return graph.tensors[out].name + " lies outside the arena";
      for (const TensorId other : alive) {
        const Extent kept = extent_of(graph, plan, other);
        const bool in_place = std::holds_alternative<Rope>(op.kind) && other == op.inputs[0] &&
                              !is_read_from(graph, other, index + 1) && kept.begin == written.begin;
        if (!in_place && written.begin < kept.end && kept.begin < written.end)
          return graph.tensors[out].name + " overwrites " + graph.tensors[other].name;
      }
      alive.push_back(out);
    }
    size_t bytes = 0;
    for (const TensorId id : alive) {
      const bool replaced =
          std::holds_alternative<Rope>(op.kind) && id == op.inputs[0] && !is_read_from(graph, id, index + 1);
      const Extent extent = extent_of(graph, plan, id);
      if (!replaced) bytes += extent.end - extent.begin;
    }
    most_alive = std::max(most_alive, bytes);
    std::erase_if(alive, [&](TensorId id) { return !is_read_from(graph, id, index + 1); });
  }
  return {};
}

size_t bytes_of_all(const Graph& graph, const MemoryPlan& plan) {
  size_t sum = 0;
  for (TensorId id = 0; id < graph.tensors.size(); ++id) {
    const Extent extent = extent_of(graph, plan, id);
    sum += extent.end - extent.begin;
  }
  return sum;
}

}  // namespace

TEST_CASE("live tensors never overlap in random graphs") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  Random random(seed);
  size_t in_place = 0;
  for (size_t round = 0; round < 150; ++round) {
    const Graph graph = RandomGraph(random).make(pick(random, 1, 90));
    REQUIRE(check_graph(graph) == "");
    const MemoryPlan plan = plan_memory(graph, {pick(random, 1, 70), pick(random, 0, 5)});
    size_t most_alive = 0;
    CHECK(play(graph, plan, most_alive) == "");
    CHECK(plan.arena_bytes >= most_alive);
    CHECK(plan.arena_bytes <= bytes_of_all(graph, plan));
    if (most_alive > 0) CHECK(plan.arena_bytes < 2 * most_alive);
    for (TensorId id = 0; id < graph.tensors.size(); ++id) {
      CHECK(plan.offset[id] % 64 == 0);
      CHECK(plan.stride[id] == row_stride(graph.tensors[id]));
    }
    for (const Op& op : graph.ops) {
      if (std::holds_alternative<Rope>(op.kind) && plan.offset[op.inputs[0]] == plan.offset[op.outputs[0]])
        ++in_place;
    }
  }
  CHECK(in_place > 100);  // so the case was really met
}

TEST_CASE("a deep chain needs no more than a shallow one") {
  const auto chain = [](size_t layers) {
    Graph graph;
    graph.weights = {
        {"table", Scheme::f16, 10, 64}, {"gain", Scheme::f32, 1, 64}, {"w", Scheme::f32, 64, 64}};
    const auto tensor = [&](RowExtent rows) {
      graph.tensors.push_back({"t", rows, 64, ElementType::f32});
      return static_cast<TensorId>(graph.tensors.size() - 1);
    };
    TensorId x = tensor(RowExtent::tokens);
    graph.ops.push_back({"embed", Embed{0}, {}, {x}});
    for (size_t layer = 0; layer < layers; ++layer) {
      const TensorId y = tensor(RowExtent::tokens);
      graph.ops.push_back({"linear", Linear{{{2, {}}}}, {x}, {y}});
      const TensorId normed = tensor(RowExtent::tokens);
      const TensorId sum = tensor(RowExtent::tokens);
      graph.ops.push_back({"norm", Norm{1, 0.0f, false}, {x, y}, {normed, sum}});
      x = sum;
    }
    graph.logits = tensor(RowExtent::outputs);
    graph.ops.push_back({"norm", Norm{1, 0.0f, true}, {x}, {graph.logits}});
    return graph;
  };
  const Graph deep = chain(100);
  const MemoryPlan plan = plan_memory(deep, {32, 1});
  CHECK(plan.arena_bytes == plan_memory(chain(2), {32, 1}).arena_bytes);
  CHECK(plan.arena_bytes * 50 < bytes_of_all(deep, plan));
}

TEST_CASE("rope works in place only when its input dies there") {
  Graph graph;
  graph.weights = {{"table", Scheme::f16, 10, 64}, {"gain", Scheme::f32, 1, 64}};
  for (const RowExtent rows : {RowExtent::tokens, RowExtent::tokens, RowExtent::outputs, RowExtent::outputs})
    graph.tensors.push_back({"t", rows, 64, ElementType::f32});
  graph.ops = {{"embed", Embed{0}, {}, {0}},
               {"rope", Rope{8, 8, {1.0}}, {0}, {1}},
               {"norm", Norm{1, 0.0f, true}, {1, 1}, {2, 3}}};
  graph.logits = 2;
  MemoryPlan plan = plan_memory(graph, {7, 3});
  CHECK(plan.offset[0] == plan.offset[1]);
  graph.ops[2].inputs = {0, 1};
  plan = plan_memory(graph, {7, 3});
  CHECK(plan.offset[0] != plan.offset[1]);
}

TEST_CASE("row strides are whole cache lines and never multiples of 4096") {
  for (size_t columns = 1; columns < 20000; columns += columns < 3000 ? 1 : 37) {
    const size_t plain = row_stride({"t", RowExtent::tokens, columns, ElementType::f32});
    const size_t codes = row_stride({"t", RowExtent::tokens, columns, ElementType::q8});
    REQUIRE(plain % 64 == 0);
    REQUIRE(plain % 4096 != 0);
    REQUIRE(plain >= 4 * columns);
    REQUIRE(plain < 4 * columns + 128);
    REQUIRE(codes % 64 == 0);
    REQUIRE(codes % 4096 != 0);
    REQUIRE(codes >= q8::sums_offset(columns) + 4 * q8::groups(columns));
  }
}

TEST_CASE("limits beyond the address space are refused with the tensor's name") {
  Graph graph;
  graph.tensors = {{"wide", RowExtent::tokens, 1 << 20, ElementType::f32},
                   {"logits", RowExtent::outputs, 1 << 20, ElementType::f32}};
  graph.weights = {{"table", Scheme::f16, 10, 1 << 20}, {"gain", Scheme::f32, 1, 1 << 20}};
  graph.ops = {{"embed", Embed{0}, {}, {0}}, {"norm", Norm{1, 0.0f, true}, {0}, {1}}};
  graph.logits = 1;
  REQUIRE(check_graph(graph) == "");
  std::string line;
  try {
    (void)plan_memory(graph, {size_t{1} << 60, 1});
  } catch (const std::runtime_error& error) {
    line = error.what();
  }
  CHECK(line.find("\"wide\"") != std::string::npos);
}
