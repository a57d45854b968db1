// The memory plan: what parts of a model take, how many layers fit a device, and the lines for what does not.
#include "engine/placement.h"

#include <doctest/doctest.h>

#include <iostream>
#include <memory>
#include <random>

#include "backends/reference/reference_backend.h"
#include "backends/split/split_backend.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

namespace {

// Three layers whose sizes are easy to count: the graph of a decoder, never run.
Graph decoder(size_t layers) {
  Graph graph;
  const auto weight = [&](size_t rows, size_t columns) {
    graph.weights.push_back({"w" + std::to_string(graph.weights.size()), Scheme::f32, rows, columns});
    return static_cast<WeightId>(graph.weights.size() - 1);
  };
  const auto tensor = [&](RowExtent rows, size_t columns) {
    graph.tensors.push_back({"t" + std::to_string(graph.tensors.size()), rows, columns, ElementType::f32});
    return static_cast<TensorId>(graph.tensors.size() - 1);
  };
  constexpr size_t kHidden = 8;
  const WeightId table = weight(100, kHidden);
  TensorId residual = tensor(RowExtent::tokens, kHidden);
  graph.ops.push_back({"embed", Embed{table}, {}, {residual}});
  TensorId added = residual;
  const auto norm = [&](bool select) {
    const RowExtent rows = select ? RowExtent::outputs : RowExtent::tokens;
    const TensorId y = tensor(rows, kHidden);
    const TensorId sum = tensor(rows, kHidden);
    if (added == residual) {
      graph.tensors.pop_back();
      graph.ops.push_back({"norm", Norm{weight(1, kHidden), 0, select}, {residual}, {y}});
    } else {
      graph.ops.push_back({"norm", Norm{weight(1, kHidden), 0, select}, {residual, added}, {y, sum}});
      residual = sum;
    }
    return y;
  };
  for (size_t layer = 0; layer < layers; ++layer) {
    const TensorId x = norm(false);
    const TensorId qkv = tensor(RowExtent::tokens, 3 * kHidden);
    graph.ops.push_back({"qkv", Linear{{{weight(3 * kHidden, kHidden), std::nullopt}}}, {x}, {qkv}});
    const TensorId y = tensor(RowExtent::tokens, kHidden);
    graph.ops.push_back({"attention", Attention{layer, 1, 1, kHidden, 1.0f}, {qkv}, {y}});
    added = tensor(RowExtent::tokens, kHidden);
    graph.ops.push_back({"o", Linear{{{weight(kHidden, kHidden), std::nullopt}}}, {y}, {added}});
  }
  const TensorId x = norm(true);
  graph.logits = tensor(RowExtent::outputs, 100);
  graph.ops.push_back({"logits", Linear{{{table, std::nullopt}}}, {x}, {graph.logits}});
  return graph;
}

}  // namespace

TEST_CASE("places add up to the model, and the layers that fit are the most that do") {
  const uint64_t seed = std::random_device{}();
  std::cout << "placement: seed " << seed << "\n";
  std::mt19937_64 random(seed);
  const size_t layers = 2 + random() % 6;
  const Graph graph = decoder(layers);
  REQUIRE(check_graph(graph) == "");
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const PlacedModel model{graph,
                          [](const Weight& weight) { return weight.rows * weight.columns * 4; },
                          {layers, 1, 8, 16, 0},
                          {10, 3}};
  const Place whole = plan_place(model, {"one", *backend, 0});
  const size_t table = 100 * 8 * 4;
  const size_t layer = (8 + 3 * 8 * 8 + 8 * 8) * 4;
  const size_t gain = 8 * 4;
  CHECK(whole.weight_bytes == table + layers * layer + gain);
  CHECK(whole.layers == layers);
  CHECK(whole.page_bytes == backend->kv_page_bytes(model.kv));
  CHECK(whole.kv_bytes(65) == 2 * whole.page_bytes);

  for (size_t last = 1; last < layers; ++last) {
    const auto places = plan_places(model, {"first", *backend, 0}, {"last", *backend, 0}, last);
    REQUIRE(places.size() == 2);
    CHECK(places[0].layers + places[1].layers == layers);
    CHECK(places[1].layers == last);
    // The table is the head as well, and the gain at the cut is read by both.
    CHECK(places[0].weight_bytes == table + (layers - last) * layer + gain);
    CHECK(places[1].weight_bytes == table + last * layer + gain);
    CHECK(places[0].page_bytes + places[1].page_bytes == whole.page_bytes);
    const size_t needed = places[1].weight_bytes + places[1].activation_bytes + places[1].kv_bytes(100);
    CHECK(layers_that_fit(model, {"last", *backend, needed}, 100) >= last);
    CHECK(layers_that_fit(model, {"last", *backend, needed - 1}, 100) < last);
  }
  CHECK(plan_places(model, {"a", *backend, 0}, {"b", *backend, 0}, layers).empty());
  CHECK(layers_that_fit(model, {"a", *backend, 0}, 1000) == layers);
  CHECK(layers_that_fit(model, {"a", *backend, 1}, 1) == 0);
}

TEST_CASE("what does not fit is named with what would") {
  const Graph graph = decoder(2);
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const PlacedModel model{graph, [](const Weight&) { return size_t{1} << 28; }, {2, 1, 8, 16, 0}, {10, 3}};
  std::vector<Place> places = {plan_place(model, {"cuda", *backend, size_t{4} << 30})};
  CHECK(memory_fault(places, 64, 16, "advice") == "");
  places[0].available_bytes = places[0].weight_bytes + places[0].activation_bytes + 2 * places[0].page_bytes;
  CHECK(memory_fault(places, 128, 16, "advice") == "");
  const std::string line = memory_fault(places, 129, 16, "advice");
  CHECK(line.find("not enough memory: weights 2.00 GiB + KV cache ") == 0);
  CHECK(line.find("(129 tokens at 16 bits)") != std::string::npos);
  CHECK(line.find("; --ctx 128 would fit, advice") != std::string::npos);
  places[0].available_bytes = 1 << 20;
  CHECK(memory_fault(places, 1, 16, "advice").find("available; advice") != std::string::npos);
  places.push_back(places[0]);
  CHECK(memory_fault(places, 1, 16, "advice").find("not enough memory on cuda for 2 layers: ") == 0);
}
