// A backend made of two: the first layers of a graph run on one, the others and the head on another. The
// first gives rows of the residual stream to the second as float32, the form in which one backend keeps them
// too, so that splitting changes no result.
#pragma once

#include <memory>
#include <vector>

#include "backends/backend.h"

namespace tessera {

// The part of a cache for the layers below number `layers`, and the part for all others.
KvGeometry first_layers(const KvGeometry& geometry, size_t layers);
KvGeometry other_layers(const KvGeometry& geometry, size_t layers);

// layers: how many of the graph's layers run on the first backend. A weight is adopted by the backend whose
// part reads it, or by both, when a program is compiled; what such a backend refuses fails then.
std::unique_ptr<Backend> make_split_backend(std::unique_ptr<Backend> first, std::unique_ptr<Backend> second,
                                            size_t layers);

// What runs on one backend: a graph with its weights, and a cache for it.
struct ProgramPart {
  Backend& backend;
  const Graph& graph;
  std::vector<WeightHandle>& weights;
  KvStorage& kv;
};
// The two parts of a program that a split backend has compiled, in order, for measuring each by itself; valid
// as long as all three arguments. Empty for arguments of any other backend.
std::vector<ProgramPart> parts_of(Backend& backend, Program& program, KvStorage& kv);

}  // namespace tessera
