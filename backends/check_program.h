// The faults of what a program or a cache is made of, found before any backend sees it. Every function
// returns one line that names the first thing that does not fit, what was expected and what was found; an
// empty string when there is none.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "backends/backend.h"

namespace tessera {

// The graph by itself, weights and kv that this backend made, weights as the graph describes them, a plan
// with room for every tensor, and a cache that has the layers and heads of the attention ops.
std::string program_fault(BackendId backend, const Graph& graph, const MemoryPlan& plan,
                          std::span<const WeightHandle> weights, const KvStorage& kv);

// A tensor of weights, or an order of columns that names each once, whose bytes have the size of its shape.
std::string tensor_fault(const StoredTensor& tensor);

// Bits, head size and number of heads; the numbers of a page's values fit the address space. A backend may
// support less.
std::string kv_fault(const KvGeometry& geometry);

// Whether the bytes of all pages fit the address space.
std::string kv_size_fault(size_t page_bytes, size_t pages);

}  // namespace tessera
