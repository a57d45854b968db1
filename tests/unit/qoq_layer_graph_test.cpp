// How the recipe finds a layer's matrices in a graph, what it leaves out where a structure is not there, and
// what it refuses.
#include "engine/quantize/calibration/layer_graph.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "backends/cpu/dense_products.h"
#include "engine/quantize/calibration/calibrate_layer.h"
#include "engine/quantize/qoq/rotate_layer.h"
#include "engine/quantize/recipe/known_roles.h"
#include "engine/quantize/recipe/quantize_layer.h"
#include "gguf-like-format/file_error.h"
#include "qoq_layers.h"

using namespace tessera;
using namespace tessera::quantize;

namespace {

constexpr auto kF32 = DenseProduct::Precision::f32;

// A graph of three layers to be changed, and the roles of its weights.
struct Changeable {
  Graph graph;
  std::vector<Role> roles;

  explicit Changeable(bool biases) {
    Hyperparameters h = qoq_test::hyperparameters_of({48, 4, 2, 8, 40, biases});
    h.layers = 3;
    graph = build_graph(h, [](const ExpectedTensor&) { return Scheme::f32; });
    for (const ExpectedTensor& tensor : expected_tensors(h)) roles.push_back(tensor.role);
  }
  Op& op(const std::string& name) {
    return *std::find_if(graph.ops.begin(), graph.ops.end(),
                         [&](const Op& each) { return each.name == name; });
  }
  size_t index(const std::string& name) { return static_cast<size_t>(&op(name) - graph.ops.data()); }
  std::vector<LayerGraph> layers() const { return find_layers(graph, roles); }
};

// What a layer with these changes to its graph says and does when it is smoothed.
struct Smoothed {
  std::vector<std::string> notes;
  bool q_changed = false, up_changed = false;

  bool noted(const std::string& begin) const {
    return std::any_of(notes.begin(), notes.end(),
                       [&](const std::string& line) { return line.rfind(begin, 0) == 0; });
  }
};

Smoothed smoothed(const Changeable& model, Scheme scheme) {
  std::mt19937 generator = qoq_test::seeded();
  const auto products = make_cpu_dense_products(2);
  const std::vector<LayerGraph> layers = model.layers();
  const LayerGraph& graph = layers[1];
  FloatLayer layer(graph);
  for (const WeightId id : graph.weights) {
    FloatMatrix& weights = layer.matrix(id);
    weights = qoq_test::random_matrix(generator, weights.rows, weights.columns, 0.3f);
  }
  const std::vector<size_t> windows = {20, 9};
  const FloatMatrix before = qoq_test::random_matrix(generator, 29, graph.stream_columns(), 1.0f);
  FloatMatrix output = before;
  run_layer(*products, kF32, layer, windows, output);
  LayerStatistics statistics = calibrate_layer(
      *products, kF32, layer, true, windows, before.values, [](std::span<const float>) {}, [](size_t) {});
  const FloatLayer former = layer;
  Smoothed result;
  const LayerContext context{*products, kF32, [&](const std::string& line) { result.notes.push_back(line); }};
  Recipe recipe = Recipe::for_scheme(scheme);
  recipe.awq = true;
  recipe.attention_alpha = 0.5;
  recipe.output_alpha = 0.5;
  smooth_layer(context, recipe, scheme, layer, statistics);
  FloatMatrix after = before;
  run_layer(*products, kF32, layer, windows, after);
  CHECK(qoq_test::relative_difference(after, output) < 1e-5);
  const auto changed = [&](Role role) {
    const auto place = std::find(graph.roles.begin(), graph.roles.end(), role) - graph.roles.begin();
    const WeightId id = graph.weights.at(static_cast<size_t>(place));
    return layer.matrix(id).values != former.matrix(id).values;
  };
  result.q_changed = changed(Role::q);
  result.up_changed = changed(Role::up);
  return result;
}

}  // namespace

TEST_CASE("every layer of a decoder lies between two states of the residual stream") {
  for (const bool biases : {false, true}) {
    Changeable model(biases);
    const std::vector<LayerGraph> layers = model.layers();
    REQUIRE(layers.size() == 3);
    CHECK(layers[0].before.op == 1);
    CHECK(layers[0].before.parts.size() == 1);
    CHECK(layers[2].after.op == model.index("output_norm"));
    for (size_t i = 0; i < layers.size(); ++i) {
      const LayerGraph& layer = layers[i];
      if (i > 0) {
        CHECK(layer.before.op == layers[i - 1].after.op);
        CHECK(layer.before.parts.size() == 2);
      }
      CHECK(layer.stream_columns() == 48);
      CHECK(layer.linears.size() == 4);
      CHECK(layer.norms.size() == 2);
      CHECK(layer.writers.size() == 2);
      CHECK(layer.rotation_obstacle.empty());
      CHECK(layer.weights.size() == (biases ? 13 : 9));
      const std::string prefix = "layers." + std::to_string(i) + ".";
      for (const WeightId id : layer.weights) CHECK(model.graph.weights[id].name.rfind(prefix, 0) == 0);
      REQUIRE(layer.attention);
      CHECK(layer.attention->keys_can_be_scaled);
      CHECK(model.graph.weights[layer.attention->k.weight].name == prefix + "k");
      CHECK(model.graph.weights[layer.attention->o.weight].name == prefix + "o");
      CHECK(layer.attention->q.bias.has_value() == biases);
      REQUIRE(layer.feed_forward);
      CHECK(model.graph.weights[layer.feed_forward->up.weight].name == prefix + "up");
      const std::vector<WeightId> gain = layer.scales_before(layer.feed_forward->input);
      REQUIRE(gain.size() == 1);
      CHECK(model.graph.weights[gain.front()].name == prefix + "ffn_norm");
    }
  }
}

TEST_CASE("a layer of the known structure is smoothed without a word about what is missing") {
  const Changeable model(true);
  for (const Scheme scheme : {Scheme::w4a8_g128, parse_scheme("lut4-g32").value()}) {
    const Smoothed result = smoothed(model, scheme);
    CHECK(result.q_changed);
    // The exponent of row scales is fixed; for tables the best scaling of some weights is none.
    if (scheme == Scheme::w4a8_g128) CHECK(result.up_changed);
    CHECK(result.noted("keys: alpha 0.50"));
  }
}

TEST_CASE("keys are not scaled when pairs of channels lie elsewhere or something else is done to them") {
  Changeable partial(true);
  std::get<Rope>(partial.op("layers.1.rope").kind).inverse_frequency.resize(2);
  const Smoothed result = smoothed(partial, Scheme::w4a8_g128);
  CHECK(!result.q_changed);
  CHECK(result.up_changed);
  CHECK(result.noted("keys: SmoothAttention left out"));
}

TEST_CASE("values that are rotated on their way to attention are no known structure") {
  Changeable model(true);
  CHECK(model.layers()[1].attention);
  std::get<Rope>(model.op("layers.1.rope").kind).heads += 1;
  REQUIRE(check_graph(model.graph).empty());
  CHECK(!model.layers()[1].attention);
  CHECK(model.layers()[2].attention);
}

TEST_CASE("steps of a structure that is not there are left out with a note") {
  Changeable model(false);
  for (size_t i = 0; i < model.roles.size(); ++i)
    if (model.graph.weights[i].name == "layers.1.gate") model.roles[i] = Role::ffn_norm;  // some other role
  for (const Scheme scheme : {Scheme::w4a8_g128, parse_scheme("lut4-g32").value()}) {
    const Smoothed result = smoothed(model, scheme);
    CHECK(!result.up_changed);
    CHECK(result.noted("feed-forward part: steps that change it are left out"));
    CHECK(!result.noted("attention: steps"));
  }
  for (size_t i = 0; i < model.roles.size(); ++i)
    if (model.graph.weights[i].name == "layers.1.o") model.roles[i] = Role::ffn_norm;
  const Smoothed neither = smoothed(model, Scheme::w4a8);
  CHECK(!neither.q_changed);
  CHECK(!neither.up_changed);
  CHECK(neither.noted("attention: steps that change it are left out"));
}

TEST_CASE("a residual stream that is not only read through norms and written by matrices is not rotated") {
  Changeable model(true);
  CHECK(rotation_obstacle(model.layers()).empty());
  // Something is done to what o gives before it is added.
  const size_t place = model.index("layers.1.o") + 1;
  const TensorId given = model.op("layers.1.o").outputs[0];
  const TensorId made = static_cast<TensorId>(model.graph.tensors.size());
  model.graph.tensors.push_back(model.graph.tensors[given]);
  for (Op& op : model.graph.ops) std::replace(op.inputs.begin(), op.inputs.end(), given, made);
  model.graph.ops.insert(model.graph.ops.begin() + static_cast<std::ptrdiff_t>(place),
                         Op{"layers.1.changed", Rope{1, 8, {}}, {given}, {made}});
  REQUIRE(check_graph(model.graph).empty());
  CHECK(rotation_obstacle(model.layers()) ==
        "op \"layers.1.changed\" (rope) stands between the residual stream and a matrix");

  // Nor when more than a norm reads the stream behind the last layer.
  Changeable read(true);
  read.op("logits").inputs[0] = read.op("output_norm").outputs[1];
  CHECK(rotation_obstacle(read.layers()) ==
        "op \"output_norm\" (norm) stands between the residual stream and a matrix");
}

TEST_CASE("a layer that hands on more than the residual stream is refused by the name of its op") {
  Changeable model(false);
  model.op("layers.1.o").inputs[0] = model.op("layers.0.attention").outputs[0];
  CHECK_THROWS_WITH_AS(model.layers(),
                       "op \"layers.1.attention\": expected nothing but the residual stream to be handed to "
                       "its layer, found more",
                       std::runtime_error);
}

TEST_CASE("a tensor whose role the recipe does not know is refused by its name") {
  std::vector<PlannedWeight> plan(2);
  plan[0].expected.role = Role::down;
  plan[0].expected.source.name = "model.down";
  refuse_unknown_roles("folder", plan);
  plan[1].expected.role = static_cast<Role>(250);
  plan[1].expected.source.name = "model.new";
  CHECK(!is_known_role(plan[1].expected.role));
  CHECK_THROWS_WITH_AS(
      refuse_unknown_roles("folder", plan),
      "folder: tensor \"model.new\": expected one whose role the recipe knows, found another", FileError);
  // The steps change columns, so an order of them would no longer be true.
  for (const RoleRow& row : role_rows()) CHECK(is_known_role(row.role) == (row.kind != RoleKind::order));
}
