// The layers of a model's graph: where each begins and ends, and which of its matrices stand where. The steps
// of the recipe find what they change here, so that none of them knows a family.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/tensor_roles.h"
#include "graph/graph.h"

namespace tessera::quantize {

// A place between two ops where nothing but the residual stream is handed on: one tensor, or two that the
// norm behind this place adds.
struct StreamCut {
  size_t op = 0;                // the first one behind it
  TensorId stream = 0;          // the stream itself; with two parts, the sum that the norm writes
  std::vector<TensorId> parts;  // one or two
};

// q, k and v side by side, attention, and o, with nothing but rotary positions of queries and keys in
// between.
struct AttentionBlock {
  size_t input = 0;      // op: the Linear of q, k and v
  size_t attention = 0;  // op
  size_t output = 0;     // op: the Linear of o, which reads nothing but what attention writes
  LinearPart q, k, v, o;
  Attention shape{};  // of the attention op
  // Whether channels i and i + head_dim / 2 of a key may be divided by one factor, and those of the queries
  // multiplied, without changing a score: rotary positions, where there are any, rotate whole heads.
  bool keys_can_be_scaled = false;
};

// down(function(gate) * up)
struct FeedForwardBlock {
  size_t input = 0;   // op: the Linear of gate and up
  size_t output = 0;  // op: the Linear of down
  LinearPart gate, up, down;
  Gate shape{};  // of the gate op
};

// A norm of the residual stream and the Linear ops that read what it writes.
struct NormedLinears {
  size_t norm = 0;
  std::vector<size_t> linears;
};

struct LayerGraph {
  const Graph* graph = nullptr;
  StreamCut before, after;                       // its ops are [before.op, after.op)
  std::vector<size_t> linears;                   // ops, in order
  std::vector<WeightId> weights;                 // that its ops read, in rising order
  std::vector<Role> roles;                       // of these weights
  std::optional<AttentionBlock> attention;       // nothing when the layer has another structure
  std::optional<FeedForwardBlock> feed_forward;  // nothing when the layer has another structure
  std::vector<NormedLinears> norms;              // of the residual stream
  std::vector<size_t> writers;  // Linear ops whose output is added to the residual stream as it is
  // Why the residual stream cannot be rotated: what reads or writes it otherwise. Empty when it can.
  std::string rotation_obstacle;

  size_t stream_columns() const { return graph->tensors[before.stream].columns; }
  const Linear& linear(size_t op) const;
  // The Linear op that multiplies with this matrix; nothing for vectors.
  std::optional<size_t> linear_of(WeightId matrix) const;
  // The gain, and the bias if there is one, of the norm whose output this Linear, and nothing else, reads.
  std::vector<WeightId> scales_before(size_t linear_op) const;
};

// The layers in order, one for every attention op. roles: by WeightId. The graph, which has to outlive the
// result, is sound (check_graph) and has f32 weights only. Throws std::runtime_error, naming the op, when a
// layer hands on more than the residual stream or contains an op that has no place in a layer.
std::vector<LayerGraph> find_layers(const Graph& graph, std::span<const Role> roles);

}  // namespace tessera::quantize
