// What a program can run: the faults of a batch, found before any backend sees it. Every function returns one
// line that says what is wrong, or an empty string; only a fault costs an allocation.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "graph/batch.h"
#include "graph/graph.h"
#include "graph/memory_plan.h"

namespace tessera {

class KvStorage;

struct BatchLimits {
  PlanLimits plan;
  size_t pages = 0;  // page ids are below this
  // Page ids of layers with a window are below this; nothing where no layer has pages of its own.
  std::optional<size_t> window_pages;
  size_t vocabulary = 0;      // token ids are below this
  size_t positions = 0;       // and positions below this
  size_t input_columns = 0;   // values that the batch brings for each token
  size_t logits_columns = 0;  // values of a row of logits
};

// The limits of a sound graph (check_graph) with this cache. Token ids are limited by the shortest embedding
// table; a graph without one takes any.
BatchLimits batch_limits(const Graph& graph, const PlanLimits& plan, const KvStorage& kv);

// Numbers of rows, token ids, sequences with positions and pages, output rows, input rows.
std::string batch_fault(const Batch& batch, const BatchLimits& limits);

// Whether this many floats hold the logits of a batch without faults.
std::string logits_fault(const Batch& batch, const BatchLimits& limits, size_t floats);

// Whether a program that gives the most_best largest logits of a row can fill this many entries with `count`
// for each output row.
std::string best_fault(const Batch& batch, size_t count, size_t most_best, size_t entries);

}  // namespace tessera
