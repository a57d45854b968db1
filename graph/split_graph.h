// A graph cut in two before a layer, so that each part can run on a backend of its own.
#pragma once

#include <optional>
#include <vector>

#include "graph/graph.h"

namespace tessera {

struct GraphPart {
  Graph graph;
  std::vector<WeightId> weights;  // per weight of the part: its id in the whole graph
};

struct SplitGraph {
  // Its logits are the residual stream [outputs, hidden size]; run with every token as an output row.
  GraphPart first;
  // Its input op reads these rows; its attention layers count from 0.
  GraphPart second;
};

// Cuts a sound graph (check_graph) before the attention op of `layer`, in the sum of the norm that precedes
// it. Both parts together compute what the graph computes, bit for bit. Nothing when there is no such layer,
// or when later ops read more than the residual stream.
std::optional<SplitGraph> split_graph(const Graph& graph, size_t layer);

}  // namespace tessera
