// Graphviz text of a graph, for `tessera inspect --graph dot`.
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "graph/op_weights.h"
#include "graph/overloaded.h"

namespace tessera {

namespace {

std::string escaped(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out;
}

std::string parameters_of(const OpKind& kind) {
  return std::visit(
      Overloaded{[](const Norm& norm) { return std::string(norm.select_rows ? "selected rows" : ""); },
                 [](const HeadNorm& norm) {
                   return fmt::format("{} query and {} kv heads of {}", norm.query_heads, norm.kv_heads,
                                      norm.head_dim);
                 },
                 [](const Rope& rope) {
                   return fmt::format("{} heads of {}, {} rotated", rope.heads, rope.head_dim,
                                      2 * rope.inverse_frequency.size());
                 },
                 [](const Attention& attention) {
                   return fmt::format("{} query and {} kv heads of {}", attention.query_heads,
                                      attention.kv_heads, attention.head_dim) +
                          (attention.window > 0 ? fmt::format(", window {}", attention.window) : "") +
                          (attention.soft_cap > 0 ? fmt::format(", soft cap {}", attention.soft_cap) : "");
                 },
                 [](const Gate& gate) {
                   return std::string(gate.function == GateFunction::silu ? "silu" : "gelu_tanh");
                 },
                 [](const SoftCap& cap) { return fmt::format("{}", cap.cap); },
                 [](const auto&) { return std::string(); }},
      kind);
}

// The edge into an op that reads something of the batch itself, and the node where it begins; empty for
// others.
std::string edge_from_batch(const OpKind& kind, size_t index) {
  return std::visit(Overloaded{[&](const Embed&) { return fmt::format("  tokens -> op{};\n", index); },
                               [&](const Input&) {
                                 return fmt::format("  input [shape=oval];\n  input -> op{};\n", index);
                               },
                               [](const auto&) { return std::string(); }},
                    kind);
}

std::string op_label(const Graph& graph, const Op& op) {
  std::string label = fmt::format("{}\\n{}", escaped(op.name), op_name(op.kind));
  if (const std::string parameters = parameters_of(op.kind); !parameters.empty()) label += "\\n" + parameters;
  for_each_weight(op, [&](WeightId id, WeightRole) {
    if (id >= graph.weights.size()) return;
    const Weight& weight = graph.weights[id];
    label += fmt::format("\\n{} {} [{}, {}]", escaped(weight.name), scheme_name(weight.scheme), weight.rows,
                         weight.columns);
  });
  return label;
}

std::string tensor_label(const Tensor& tensor) {
  return fmt::format("{}\\n{} [{}, {}]", escaped(tensor.name), element_name(tensor.type),
                     tensor.rows == RowExtent::outputs ? "outputs" : "tokens", tensor.columns);
}

}  // namespace

std::string graph_to_dot(const Graph& graph) {
  std::string text = "digraph tessera {\n  rankdir=TB;\n  node [shape=box, fontname=\"monospace\"];\n";
  text += "  edge [fontname=\"monospace\"];\n  tokens [shape=oval];\n  logits [shape=oval];\n";
  // The op that writes each tensor; the graph may be unsound, so ids are checked.
  const size_t none = graph.ops.size();
  std::vector<size_t> writer(graph.tensors.size(), none);
  for (size_t index = 0; index < graph.ops.size(); ++index) {
    const Op& op = graph.ops[index];
    text += fmt::format("  op{} [label=\"{}\"];\n", index, op_label(graph, op));
    text += edge_from_batch(op.kind, index);
    for (const TensorId id : op.outputs) {
      if (id < writer.size()) writer[id] = index;
    }
  }
  for (size_t index = 0; index < graph.ops.size(); ++index) {
    for (const TensorId id : graph.ops[index].inputs) {
      if (id >= writer.size() || writer[id] == none) continue;
      text +=
          fmt::format("  op{} -> op{} [label=\"{}\"];\n", writer[id], index, tensor_label(graph.tensors[id]));
    }
  }
  if (graph.logits < writer.size() && writer[graph.logits] != none) {
    text += fmt::format("  op{} -> logits [label=\"{}\"];\n", writer[graph.logits],
                        tensor_label(graph.tensors[graph.logits]));
  }
  return text + "}\n";
}

}  // namespace tessera
