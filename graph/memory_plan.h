// Where every activation lives in one arena: tensors whose lifetimes do not overlap share bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "graph/graph.h"

namespace tessera {

struct PlanLimits {
  size_t max_tokens = 0;   // rows of RowExtent::tokens tensors in one run
  size_t max_outputs = 0;  // rows of RowExtent::outputs tensors in one run
};

struct MemoryPlan {
  PlanLimits limits;
  std::vector<size_t> offset;  // per TensorId, in bytes from the arena's start, multiples of 64
  std::vector<size_t> stride;  // per TensorId, bytes from one row to the next
  size_t arena_bytes = 0;
};

// Bytes from one row of the tensor to the next: whole cache lines, never a multiple of 4096.
size_t row_stride(const Tensor& tensor);

// Places tensors by decreasing size, each at the lowest offset where no tensor lies that is needed at the
// same time. An op that can work in place shares its input's bytes when no later op reads the input. The
// logits are needed until the end of the run. The graph must be sound (check_graph). Throws
// std::runtime_error with the tensor's name when the limits exceed the address space.
MemoryPlan plan_memory(const Graph& graph, const PlanLimits& limits);

}  // namespace tessera
