#include "graph/split_graph.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "graph/op_weights.h"

namespace tessera {

namespace {

// Copies ops of one graph into another, with the tensors and weights that they name.
class Copier {
 public:
  explicit Copier(const Graph& from) : from_(from) {}

  TensorId tensor(TensorId id) {
    const auto [found, is_new] = tensors_.emplace(id, static_cast<TensorId>(to_.tensors.size()));
    if (is_new) to_.tensors.push_back(from_.tensors[id]);
    return found->second;
  }

  // The copy of a tensor, with another extent and type.
  TensorId tensor(TensorId id, RowExtent rows, ElementType type) {
    const TensorId copy = tensor(id);
    to_.tensors[copy].rows = rows;
    to_.tensors[copy].type = type;
    return copy;
  }

  void add(std::string name, OpKind kind, const std::vector<TensorId>& inputs,
           const std::vector<TensorId>& outputs) {
    Op op{std::move(name), std::move(kind), {}, {}};
    for_each_weight(op, [&](WeightId& id, WeightRole) { id = weight(id); });
    for (const TensorId id : inputs) op.inputs.push_back(tensor(id));
    for (const TensorId id : outputs) op.outputs.push_back(tensor(id));
    to_.ops.push_back(std::move(op));
  }

  GraphPart finish(TensorId logits) {
    to_.logits = tensor(logits);
    return {std::move(to_), std::move(origins_)};
  }

 private:
  WeightId weight(WeightId id) {
    const auto [found, is_new] = weights_.emplace(id, static_cast<WeightId>(to_.weights.size()));
    if (is_new) {
      to_.weights.push_back(from_.weights[id]);
      origins_.push_back(id);
    }
    return found->second;
  }

  const Graph& from_;
  Graph to_;
  std::vector<WeightId> origins_;
  std::unordered_map<TensorId, TensorId> tensors_;
  std::unordered_map<WeightId, WeightId> weights_;
};

// Whether the op at `cut` is a norm of a sum, and this sum is all that later ops read of earlier ones.
bool adds_everything(const Graph& graph, size_t cut) {
  const Op& op = graph.ops[cut];
  const auto* norm = std::get_if<Norm>(&op.kind);
  if (norm == nullptr || norm->select_rows || op.inputs.size() != 2) return false;
  if (graph.tensors[op.inputs[0]].rows != RowExtent::tokens) return false;
  std::vector<bool> earlier(graph.tensors.size(), false);
  for (size_t i = 0; i < cut; ++i) {
    for (const TensorId id : graph.ops[i].outputs) earlier[id] = true;
  }
  if (earlier[graph.logits]) return false;
  for (size_t i = cut + 1; i < graph.ops.size(); ++i) {
    const std::vector<TensorId>& inputs = graph.ops[i].inputs;
    if (std::any_of(inputs.begin(), inputs.end(), [&](TensorId id) { return earlier[id]; })) return false;
    if (std::holds_alternative<Embed>(graph.ops[i].kind)) return false;
  }
  return true;
}

// The op to cut at; nothing when there is none.
std::optional<size_t> find_cut(const Graph& graph, size_t layer) {
  std::optional<size_t> cut;
  bool found = false;
  for (size_t i = 0; i < graph.ops.size(); ++i) {
    if (!found && adds_everything(graph, i)) cut = i;
    const auto* attention = std::get_if<Attention>(&graph.ops[i].kind);
    if (attention == nullptr) continue;
    if (!found && attention->layer != layer) cut.reset();  // the cut belongs right before its layer
    found = found || attention->layer == layer;
    if (found != (attention->layer >= layer)) return std::nullopt;
  }
  return found ? cut : std::nullopt;
}

}  // namespace

std::optional<SplitGraph> split_graph(const Graph& graph, size_t layer) {
  const std::optional<size_t> cut = find_cut(graph, layer);
  if (!cut) return std::nullopt;
  const Op& between = graph.ops[*cut];
  Norm norm_of_outputs = std::get<Norm>(between.kind);
  norm_of_outputs.select_rows = true;
  const TensorId y = between.outputs[0];
  const TensorId sum = between.outputs[1];

  Copier first(graph);
  for (size_t i = 0; i < *cut; ++i) {
    const Op& op = graph.ops[i];
    first.add(op.name, op.kind, op.inputs, op.outputs);
  }
  first.tensor(y, RowExtent::outputs, ElementType::f32);
  first.tensor(sum, RowExtent::outputs, ElementType::f32);
  first.add(between.name, norm_of_outputs, between.inputs, between.outputs);

  Copier second(graph);
  second.add("input", Input{}, {}, {sum});
  second.add(between.name, between.kind, {sum}, {y});
  for (size_t i = *cut + 1; i < graph.ops.size(); ++i) {
    const Op& op = graph.ops[i];
    OpKind kind = op.kind;
    if (auto* attention = std::get_if<Attention>(&kind)) attention->layer -= layer;
    second.add(op.name, std::move(kind), op.inputs, op.outputs);
  }
  return SplitGraph{first.finish(sum), second.finish(graph.logits)};
}

}  // namespace tessera
