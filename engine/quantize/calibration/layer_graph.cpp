#include "engine/quantize/calibration/layer_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "graph/op_weights.h"

namespace tessera::quantize {

namespace {

// The op that writes each tensor and those that read it, in order.
struct Uses {
  std::vector<size_t> writer;
  std::vector<std::vector<size_t>> readers;

  explicit Uses(const Graph& graph) : writer(graph.tensors.size(), 0), readers(graph.tensors.size()) {
    for (size_t i = 0; i < graph.ops.size(); ++i) {
      for (const TensorId id : graph.ops[i].inputs) readers[id].push_back(i);
      for (const TensorId id : graph.ops[i].outputs) writer[id] = i;
    }
  }
  // The only reader of a tensor; nothing when there are none or several.
  std::optional<size_t> only_reader(TensorId id) const {
    return readers[id].size() == 1 ? std::optional(readers[id].front()) : std::nullopt;
  }
};

std::optional<StreamCut> cut_before(const Graph& graph, const Uses& uses, size_t op) {
  std::vector<TensorId> live;
  for (TensorId id = 0; id < graph.tensors.size(); ++id)
    if (uses.writer[id] < op && !uses.readers[id].empty() && uses.readers[id].back() >= op)
      live.push_back(id);
  for (const TensorId id : live)
    if (graph.tensors[id].rows != RowExtent::tokens) return std::nullopt;
  if (live.size() == 1) return StreamCut{op, live.front(), live};
  const Op& behind = graph.ops[op];
  if (live.size() != 2 || !std::holds_alternative<Norm>(behind.kind) || behind.inputs.size() != 2)
    return std::nullopt;
  for (const TensorId id : live)
    if (uses.readers[id].back() != op) return std::nullopt;
  if (!std::is_permutation(live.begin(), live.end(), behind.inputs.begin())) return std::nullopt;
  return StreamCut{op, behind.outputs[1], behind.inputs};
}

std::string obstacle(const Op& op) {
  return fmt::format("op \"{}\" ({}) stands between the residual stream and a matrix", op.name,
                     op_name(op.kind));
}

// Fills in the structure of a layer whose ops are known.
class Reader {
 public:
  Reader(const Graph& graph, const Uses& uses, std::span<const Role> roles, LayerGraph& layer)
      : graph_(graph), uses_(uses), roles_(roles), layer_(layer) {}

  void read() {
    for (size_t op = layer_.before.op; op < layer_.after.op; ++op) {
      for_each_weight(graph_.ops[op], [&](WeightId id, WeightRole) { layer_.weights.push_back(id); });
      if (std::holds_alternative<Linear>(graph_.ops[op].kind)) layer_.linears.push_back(op);
    }
    std::sort(layer_.weights.begin(), layer_.weights.end());
    layer_.weights.erase(std::unique(layer_.weights.begin(), layer_.weights.end()), layer_.weights.end());
    for (const WeightId id : layer_.weights) layer_.roles.push_back(roles_[id]);
    for (size_t op = layer_.before.op; op < layer_.after.op; ++op) {
      if (std::holds_alternative<Attention>(graph_.ops[op].kind)) read_attention(op);
      if (std::holds_alternative<Gate>(graph_.ops[op].kind)) read_feed_forward(op);
    }
    follow_stream();
  }

 private:
  const Op& op(size_t index) const { return graph_.ops[index]; }
  bool inside(size_t index) const { return index >= layer_.before.op && index < layer_.after.op; }
  const Linear* linear(size_t index) const {
    return inside(index) ? std::get_if<Linear>(&op(index).kind) : nullptr;
  }
  bool has_roles(const Linear& kind, std::initializer_list<Role> roles) const {
    return std::equal(kind.parts.begin(), kind.parts.end(), roles.begin(), roles.end(),
                      [&](const LinearPart& part, Role role) { return roles_[part.weight] == role; });
  }

  void read_attention(size_t attention) {
    AttentionBlock block;
    block.attention = attention;
    block.shape = std::get<Attention>(op(attention).kind);
    block.keys_can_be_scaled = true;
    TensorId input = op(attention).inputs[0];
    for (;;) {  // against the order of the ops, to the Linear
      if (uses_.only_reader(input) == std::nullopt || !inside(uses_.writer[input])) return;
      block.input = uses_.writer[input];
      if (linear(block.input) != nullptr) break;
      // Steps that change values need to know that nothing is done to them on the way.
      const Op& between = op(block.input);
      const auto* rope = std::get_if<Rope>(&between.kind);
      const size_t query_and_key_columns =
          (block.shape.query_heads + block.shape.kv_heads) * block.shape.head_dim;
      if (rope == nullptr || rope->heads * rope->head_dim > query_and_key_columns) return;
      block.keys_can_be_scaled = block.keys_can_be_scaled && rope->head_dim == block.shape.head_dim &&
                                 2 * rope->inverse_frequency.size() == rope->head_dim;
      input = between.inputs[0];
    }
    const Linear& projections = *linear(block.input);
    const std::optional<size_t> reader = uses_.only_reader(op(attention).outputs[0]);
    if (!has_roles(projections, {Role::q, Role::k, Role::v}) || !reader || linear(*reader) == nullptr ||
        !has_roles(*linear(*reader), {Role::o}))
      return;
    block.q = projections.parts[0];
    block.k = projections.parts[1];
    block.v = projections.parts[2];
    block.output = *reader;
    block.o = linear(*reader)->parts[0];
    const auto rows = [&](const LinearPart& part) { return graph_.weights[part.weight].rows; };
    if (rows(block.q) != block.shape.query_heads * block.shape.head_dim ||
        rows(block.k) != block.shape.kv_heads * block.shape.head_dim || rows(block.v) != rows(block.k))
      return;
    layer_.attention = block;
  }

  void read_feed_forward(size_t gate) {
    const TensorId input = op(gate).inputs[0];
    const size_t writer = uses_.writer[input];
    const std::optional<size_t> reader = uses_.only_reader(op(gate).outputs[0]);
    if (linear(writer) == nullptr || uses_.only_reader(input) != gate || !reader ||
        linear(*reader) == nullptr)
      return;
    if (!has_roles(*linear(writer), {Role::gate, Role::up}) || !has_roles(*linear(*reader), {Role::down}))
      return;
    const std::vector<LinearPart>& parts = linear(writer)->parts;
    layer_.feed_forward = FeedForwardBlock{
        writer, *reader, parts[0], parts[1], linear(*reader)->parts[0], std::get<Gate>(op(gate).kind)};
  }

  void follow_stream() {
    TensorId stream = layer_.before.stream;
    for (size_t index = layer_.before.op; index < layer_.after.op; ++index) {
      const Op& each = op(index);
      const bool first = index == layer_.before.op && layer_.before.parts.size() == 2;
      const auto reads = [&](TensorId id) {
        return std::find(each.inputs.begin(), each.inputs.end(), id) != each.inputs.end();
      };
      if (!first && !reads(stream)) continue;
      // A rotation changes the mean that a norm with a bias takes away.
      const auto* norm = std::get_if<Norm>(&each.kind);
      if (norm == nullptr) return refuse_rotation(each);
      if (norm->bias) refuse_rotation(each);
      if (!first && each.inputs.size() == 2) {
        add_writer(each.inputs[0] == stream ? each.inputs[1] : each.inputs[0]);
        stream = each.outputs[1];
      }
      NormedLinears normed{index, uses_.readers[each.outputs[0]]};
      for (const size_t reader : normed.linears)
        if (linear(reader) == nullptr) return refuse_rotation(op(reader));
      layer_.norms.push_back(std::move(normed));
    }
    if (layer_.after.parts.size() == 2) {
      const std::vector<TensorId>& parts = layer_.after.parts;
      if (parts[0] != stream && parts[1] != stream) return refuse_rotation(op(layer_.after.op));
      add_writer(parts[0] == stream ? parts[1] : parts[0]);
    } else if (layer_.after.stream != stream) {
      refuse_rotation(op(uses_.writer[layer_.after.stream]));
    }
  }

  void add_writer(TensorId added) {
    const size_t writer = uses_.writer[added];
    if (linear(writer) == nullptr || !uses_.only_reader(added)) return refuse_rotation(op(writer));
    layer_.writers.push_back(writer);
  }

  void refuse_rotation(const Op& each) { layer_.rotation_obstacle = obstacle(each); }

  const Graph& graph_;
  const Uses& uses_;
  std::span<const Role> roles_;
  LayerGraph& layer_;
};

}  // namespace

const Linear& LayerGraph::linear(size_t op) const { return std::get<Linear>(graph->ops[op].kind); }

std::optional<size_t> LayerGraph::linear_of(WeightId matrix) const {
  for (const size_t op : linears)
    for (const LinearPart& part : linear(op).parts)
      if (part.weight == matrix) return op;
  return std::nullopt;
}

std::vector<WeightId> LayerGraph::scales_before(size_t linear_op) const {
  for (const NormedLinears& each : norms) {
    if (each.linears.size() != 1 || each.linears.front() != linear_op) continue;
    const auto& norm = std::get<Norm>(graph->ops[each.norm].kind);
    return norm.bias ? std::vector{norm.gain, *norm.bias} : std::vector{norm.gain};
  }
  return {};
}

std::vector<LayerGraph> find_layers(const Graph& graph, std::span<const Role> roles) {
  const Uses uses(graph);
  std::vector<StreamCut> begins;
  std::optional<StreamCut> latest;
  for (size_t op = 0; op < graph.ops.size(); ++op) {
    if (std::optional<StreamCut> cut = cut_before(graph, uses, op)) latest = std::move(cut);
    if (!std::holds_alternative<Attention>(graph.ops[op].kind)) continue;
    if (!latest)
      throw std::runtime_error(fmt::format(
          "op \"{}\": expected nothing but the residual stream to be handed to its layer, found more",
          graph.ops[op].name));
    begins.push_back(*latest);
    latest.reset();
  }
  std::vector<LayerGraph> layers;
  if (begins.empty()) return layers;
  if (!latest)
    throw std::runtime_error(
        "the last layer: expected nothing but the residual stream to be handed on, found more");
  begins.push_back(*latest);
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    LayerGraph& layer = layers.emplace_back();
    layer.graph = &graph;
    layer.before = begins[i];
    layer.after = begins[i + 1];
    for (size_t op = layer.before.op; op < layer.after.op; ++op) {
      const OpKind& kind = graph.ops[op].kind;
      if (std::holds_alternative<Embed>(kind) || std::holds_alternative<AddPosition>(kind) ||
          std::holds_alternative<Input>(kind) || std::holds_alternative<Quantize>(kind) ||
          std::holds_alternative<SoftCap>(kind) || std::holds_alternative<Gather>(kind) ||
          std::holds_alternative<RotatedGain>(kind))
        throw std::runtime_error(fmt::format("op \"{}\": expected an op of a layer of floats, found {}",
                                             graph.ops[op].name, op_name(kind)));
    }
    Reader(graph, uses, roles, layer).read();
  }
  // Behind the last layer only a norm and the matrices that read it may know the stream.
  LayerGraph& last = layers.back();
  const Op& output = graph.ops[last.after.op];
  const auto* output_norm = std::get_if<Norm>(&output.kind);
  const bool normed =
      output_norm != nullptr && !output_norm->bias &&
      std::all_of(uses.readers[output.outputs[0]].begin(), uses.readers[output.outputs[0]].end(),
                  [&](size_t reader) { return std::holds_alternative<Linear>(graph.ops[reader].kind); });
  const bool summed = output.outputs.size() == 2 && !uses.readers[output.outputs[1]].empty();
  if (!normed || summed) last.rotation_obstacle = obstacle(output);
  return layers;
}

}  // namespace tessera::quantize
