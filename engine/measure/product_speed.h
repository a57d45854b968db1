// How fast a backend is at parts of a model: one kind of matrix product at a time, and attention. Timed from
// outside, as the difference between programs that have more and less of them, so that backends need not
// measure their ops.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace tessera {

// The linear ops of a model that have the same shape and scheme: one of every layer, or the head.
struct ProductSpeed {
  std::string name;                   // "qkv", "gate_up", …: the first one's, without its layer
  std::string scheme;                 // of the first part
  ProductShape shape;                 // rows: of all parts together
  size_t copies = 0;                  // such ops in the model: none is used again before all others were
  size_t weight_bytes = 0;            // of one op
  double seconds = 0;                 // of one op
  std::optional<double> library_f16;  // seconds of the device's usual library
  std::optional<double> library_int8;
};

// Times every kind of linear op of the graph with so many tokens, all its copies in turn. weights are the
// graph's, adopted by the backend; any kv of it with a page will do. Throws std::runtime_error with the
// backend's line.
std::vector<ProductSpeed> measure_products(Backend& backend, const Graph& graph,
                                           std::vector<WeightHandle>& weights, KvStorage& kv,
                                           const std::function<size_t(const Weight&)>& stored_bytes,
                                           size_t tokens);

// Seconds of all attention ops of the graph for one token behind `position` others, in the pages 0, 1, … of a
// kv that no living sequence uses. What these pages hold does not matter. Throws as above.
double measure_attention(Backend& backend, const Graph& graph, std::vector<WeightHandle>& weights,
                         KvStorage& kv, size_t position);

}  // namespace tessera
