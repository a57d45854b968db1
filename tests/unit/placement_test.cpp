// The memory plan: what parts of a model take, how many layers fit a device, and the lines for what does not.
#include "engine/placement.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
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
  CHECK(whole.page_bytes.full == backend->kv_page_bytes(model.kv).full);
  CHECK(whole.kv_bytes(65) == 2 * whole.page_bytes.full);

  for (size_t last = 1; last < layers; ++last) {
    const auto places = plan_places(model, {"first", *backend, 0}, {"last", *backend, 0}, last);
    REQUIRE(places.size() == 2);
    CHECK(places[0].layers + places[1].layers == layers);
    CHECK(places[1].layers == last);
    // The table is the head as well, and the gain at the cut is read by both.
    CHECK(places[0].weight_bytes == table + (layers - last) * layer + gain);
    CHECK(places[1].weight_bytes == table + last * layer + gain);
    CHECK(places[0].page_bytes.full + places[1].page_bytes.full == whole.page_bytes.full);
    const size_t needed = places[1].weight_bytes + places[1].activation_bytes + places[1].kv_bytes(100);
    CHECK(layers_that_fit(model, {"last", *backend, needed}, 100) >= last);
    CHECK(layers_that_fit(model, {"last", *backend, needed - 1}, 100) < last);
  }
  CHECK(plan_places(model, {"a", *backend, 0}, {"b", *backend, 0}, layers).empty());
  CHECK(layers_that_fit(model, {"a", *backend, 0}, 1000) == layers);
  CHECK(layers_that_fit(model, {"a", *backend, 1}, 1) == 0);
}

TEST_CASE("a device gets the layers asked for, or those that fit with their context") {
  const uint64_t seed = std::random_device{}();
  std::cout << "device layers: seed " << seed << "\n";
  std::mt19937_64 random(seed);
  const size_t layers = 3 + random() % 5;
  const Graph graph = decoder(layers);
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const PlacedModel model{graph,
                          [](const Weight& weight) { return weight.rows * weight.columns * 4; },
                          {layers, 1, 8, 16, 0},
                          {10, 3}};
  const auto device = [&](size_t bytes) { return Memory{"cuda", *backend, bytes}; };
  // What the last `count` layers and the head take with so many tokens.
  const auto needed = [&](size_t count, size_t tokens) {
    const Place place = count == layers ? plan_place(model, device(0))
                                        : plan_places(model, {"cpu", *backend, 0}, device(0), count).back();
    return place.weight_bytes + place.activation_bytes + place.kv_bytes(tokens);
  };
  PlacementRequest request;
  request.model_context = 100000;
  const auto chosen = [&](size_t bytes) { return choose_device_layers(model, device(bytes), request); };

  for (const size_t asked : {size_t{0}, size_t{64}, size_t{1000}}) {
    request = {std::nullopt, asked, 100000};
    const size_t tokens = asked == 0 ? 4096 : asked;
    CHECK(chosen(needed(layers, tokens)).count == layers);
    CHECK(chosen(needed(layers, tokens)).advice == kSmallerCacheAdvice);
    for (size_t count = 1; count < layers; ++count) {
      CHECK(chosen(needed(count, tokens)).count == count);
      CHECK(chosen(needed(count + 1, tokens) - 1).count == count);
      CHECK(chosen(needed(count, tokens)).advice == kSmallerCacheAdvice);
    }
    CHECK(chosen(needed(1, tokens) - 1).count == 0);
    CHECK(chosen(1).count == 0);
    CHECK(chosen(1).advice == kSmallerCacheAdvice);
  }
  // A model with a shorter context than the usual one.
  request = {std::nullopt, 0, 128};
  CHECK(chosen(needed(2, 128)).count == 2);
  CHECK(chosen(needed(2, 128) - 1).count == 1);

  // Asked for: so many, whether they fit or not, but no more than there are.
  const size_t fitting = 1 + random() % (layers - 1);
  const size_t bytes = needed(fitting, 4096);
  for (size_t count = 0; count <= layers + 2; ++count) {
    request = {count, 0, 100000};
    CHECK(chosen(bytes).count == std::min(count, layers));
    CHECK(chosen(bytes).advice == (count <= fitting ? std::string(kSmallerCacheAdvice)
                                                    : fmt::format("--gpu-layers {} would fit", fitting)));
  }
  request = {layers + 5, 0, 100000};
  CHECK(chosen(needed(layers, 4096)).advice == kSmallerCacheAdvice);
  request = {1, 0, 100000};
  CHECK(chosen(1).advice == "--gpu-layers 0 would fit");
}

TEST_CASE("a cache has the tokens asked for, or as many as leave room") {
  Place host;
  host.name = "cpu";
  host.weight_bytes = 1000;
  host.activation_bytes = 24;
  host.page_bytes.full = 10;
  Place device = host;
  device.name = "cuda";
  device.on_device = true;
  const auto tokens = [](std::vector<Place> places, size_t asked = 0) {
    return choose_context(places, {std::nullopt, asked, 100000});
  };
  const auto with = [](Place place, size_t pages) {
    place.available_bytes = 1024 + pages * place.page_bytes.full;
    return place;
  };
  CHECK(tokens({host}) == 100000);  // nobody knows what there is
  CHECK(tokens({with(host, 5000)}) == 100000);
  CHECK(tokens({with(host, 200)}) == 100 * kKvPageTokens);  // half of it
  CHECK(tokens({with(host, 201)}) == 100 * kKvPageTokens);
  CHECK(tokens({with(host, 200)}, 7) == 7);
  CHECK(tokens({with(host, 0)}) == kKvPageTokens);
  host.available_bytes = 1;
  CHECK(tokens({host}) == kKvPageTokens);
  // Layers were chosen for 4,096 tokens, 64 pages, so the device gives these, and what is left where they
  // were asked for and leave less.
  CHECK(tokens({with(device, 200)}) == 100 * kKvPageTokens);
  CHECK(tokens({with(device, 100)}) == 64 * kKvPageTokens);
  CHECK(tokens({with(device, 64)}) == 64 * kKvPageTokens);
  CHECK(tokens({with(device, 3)}) == 3 * kKvPageTokens);
  // The least of both places.
  CHECK(tokens({with(host, 40), with(device, 200)}) == 20 * kKvPageTokens);
  CHECK(tokens({with(host, 400), with(device, 70)}) == 64 * kKvPageTokens);
  CHECK(tokens({with(host, 400), device}) == 200 * kKvPageTokens);
  // Nothing limits it where memory is not to be looked at.
  CHECK(choose_context({with(host, 40), with(device, 3)}, {std::nullopt, 0, 100000, false}) == 100000);
}

TEST_CASE("layers that were asked for and do not fit are refused with those that would") {
  const Graph graph = decoder(4);
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const PlacedModel model{graph,
                          [](const Weight& weight) { return weight.rows * weight.columns * 4; },
                          {4, 1, 8, 16, 0},
                          {10, 3}};
  const Memory host{"cpu", *backend, 0};
  const auto room = [&](size_t count) {
    const Place place = plan_places(model, host, host, count).back();
    return place.weight_bytes + place.activation_bytes + place.kv_bytes(500);
  };
  for (size_t fitting = 1; fitting < 3; ++fitting) {
    const Memory device{"cuda", *backend, room(fitting)};
    for (size_t asked = 1; asked <= 3; ++asked) {
      const PlacementRequest request{asked, 500, 4096};
      const DeviceLayers chosen = choose_device_layers(model, device, request);
      const auto places = plan_places(model, host, device, chosen.count);
      const std::string line = memory_fault(places, choose_context(places, request), 16, chosen.advice);
      CHECK((line == "") == (asked <= fitting));
      if (asked <= fitting) continue;
      CHECK(line.find(fmt::format("not enough memory on cuda for {} layers: ", asked)) == 0);
      const std::string ending = fmt::format("--gpu-layers {} would fit", fitting);
      REQUIRE(line.size() > ending.size());
      CHECK(line.substr(line.size() - ending.size()) == ending);
    }
  }
}

TEST_CASE("what does not fit is named with what would") {
  const Graph graph = decoder(2);
  const std::unique_ptr<Backend> backend = make_reference_backend();
  const PlacedModel model{graph, [](const Weight&) { return size_t{1} << 28; }, {2, 1, 8, 16, 0}, {10, 3}};
  std::vector<Place> places = {plan_place(model, {"cuda", *backend, size_t{4} << 30})};
  CHECK(memory_fault(places, 64, 16, "advice") == "");
  places[0].available_bytes =
      places[0].weight_bytes + places[0].activation_bytes + 2 * places[0].page_bytes.full;
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
