// How fast a backend computes parts of a model: one kind of matrix product at a time, and attention. Each is
// timed from outside, as the difference between two programs that differ only in how often they have it, so
// that backends need not measure their ops.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace tessera {

// The linear ops of a model that have the same shape and scheme: one of every layer, or the head.
struct ProductSpeed {
  std::string name;                   // "qkv", "gate_up", …: of the first one, without its layer
  std::string scheme;                 // of its first matrix
  ProductShape shape;                 // rows: of all its matrices together
  size_t copies = 0;                  // such ops in the model
  size_t weight_bytes = 0;            // of one op
  double seconds = 0;                 // of one op
  std::optional<double> library_f16;  // seconds of the device's usual library
  std::optional<double> library_int8;
};

// Times every kind of linear op of the graph with this number of tokens. All its copies run one after
// another, so that weights come from memory as in a real run. weights are the graph's, adopted by the
// backend; stored_bytes gives the size of one of them; kv is any cache of the backend with at least a page.
// Throws std::runtime_error with the backend's line.
std::vector<ProductSpeed> measure_products(Backend& backend, const Graph& graph,
                                           std::vector<WeightHandle>& weights, KvStorage& kv,
                                           const std::function<size_t(const Weight&)>& stored_bytes,
                                           size_t tokens);

// Seconds of all attention ops of the graph for one token at this position of the pages 0, 1, … of a cache
// that no living sequence uses. What these pages hold does not matter. Throws as above.
double measure_attention(Backend& backend, const Graph& graph, std::vector<WeightHandle>& weights,
                         KvStorage& kv, size_t position);

}  // namespace tessera
