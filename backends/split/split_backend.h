// A backend made of two: the first layers of a graph run on one, the others and the head on another. Between
// them rows of the residual stream are handed over as float32, so the parts compute what they would compute
// alone.
#pragma once

#include <memory>
#include <vector>

#include "backends/backend.h"

namespace tessera {

// The layers of a cache before `layers`, and those from there on.
KvGeometry first_layers(const KvGeometry& geometry, size_t layers);
KvGeometry other_layers(const KvGeometry& geometry, size_t layers);

// layers: how many of the graph's layers run on the first backend. Weights are adopted by compile, each by
// the backend whose part reads it, or by both; so a stored tensor that a backend refuses is refused there.
std::unique_ptr<Backend> make_split_backend(std::unique_ptr<Backend> first, std::unique_ptr<Backend> second,
                                            size_t layers);

// What runs together on one backend: a graph with its weights, and a cache for it.
struct ProgramPart {
  Backend& backend;
  const Graph& graph;
  std::vector<WeightHandle>& weights;
  KvStorage& kv;
};
// The two parts of what a split backend has compiled, in order, for measuring them alone; they live as long
// as all three arguments. Empty where these are another backend's.
std::vector<ProgramPart> parts_of(Backend& backend, Program& program, KvStorage& kv);

}  // namespace tessera
