// A graph cut in two before a layer, so that each part can run on a backend of its own.
#pragma once

#include <optional>
#include <vector>

#include "graph/graph.h"

namespace tessera {

struct GraphPart {
  Graph graph;
  std::vector<WeightId> weights;  // what each of the part's weights is in the whole graph
};

struct SplitGraph {
  GraphPart first;  // its logits are rows of the residual stream: with every token an output row, all of them
  GraphPart second;  // its input op takes these rows; its attention layers count from 0
};

// layer: the first one of the second part, by the number of its attention op. Both parts together compute
// what the graph computes, bit for bit: the cut lies in the sum of the layer's first norm. Nothing when there
// is no such place: no such layer, or something else is handed on besides the residual stream. The graph must
// be sound (check_graph).
std::optional<SplitGraph> split_graph(const Graph& graph, size_t layer);

}  // namespace tessera
