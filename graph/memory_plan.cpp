#include "graph/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "graph/bf16_row.h"
#include "graph/q8_row.h"

namespace tessera {

namespace {

constexpr size_t kAlignment = 64;

// Bytes shared by one tensor or by a chain of tensors that are computed in place.
struct Block {
  size_t bytes = 0;
  size_t first_op = 0;  // the op that writes it
  size_t last_op = 0;   // the last op that reads it, inclusive
  size_t offset = 0;
};

bool alive_together(const Block& a, const Block& b) {
  return a.first_op <= b.last_op && b.first_op <= a.last_op;
}

size_t checked_bytes(const Tensor& tensor, const PlanLimits& limits) {
  const size_t rows = tensor.rows == RowExtent::outputs ? limits.max_outputs : limits.max_tokens;
  const size_t stride = row_stride(tensor);
  // Leaves room for sums over all tensors of any graph that fits memory.
  constexpr size_t kMost = std::numeric_limits<size_t>::max() >> 16;
  if (rows != 0 && stride > kMost / rows) {
    throw std::runtime_error(fmt::format("activations \"{}\": {} rows of {} bytes exceed the address space",
                                         tensor.name, rows, stride));
  }
  return rows * stride;
}

// The index of the last op that reads each tensor; a tensor that no op reads lives only while it is written.
std::vector<size_t> last_readers(const Graph& graph) {
  std::vector<size_t> last(graph.tensors.size(), 0);
  for (size_t index = 0; index < graph.ops.size(); ++index) {
    for (const TensorId id : graph.ops[index].outputs) last[id] = index;
    for (const TensorId id : graph.ops[index].inputs) last[id] = index;
  }
  last[graph.logits] = graph.ops.size();
  return last;
}

// The lowest offset at which block overlaps none of the placed blocks that live at the same time.
size_t first_fit(const Block& block, const std::vector<Block>& placed) {
  std::vector<const Block*> alive;
  for (const Block& other : placed) {
    if (alive_together(block, other)) alive.push_back(&other);
  }
  std::sort(alive.begin(), alive.end(), [](const Block* a, const Block* b) { return a->offset < b->offset; });
  size_t offset = 0;
  for (const Block* other : alive) {
    if (offset + block.bytes <= other->offset) break;
    offset = std::max(offset, other->offset + other->bytes);
  }
  return offset;
}

}  // namespace

size_t row_stride(const Tensor& tensor) {
  if (tensor.type == ElementType::q8) return q8::row_stride(tensor.columns);
  if (tensor.type == ElementType::bf16) return bf16_row::row_stride(tensor.columns);
  const size_t bytes = (tensor.columns * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
  return bytes % 4096 == 0 ? bytes + kAlignment : bytes;
}

MemoryPlan plan_memory(const Graph& graph, const PlanLimits& limits) {
  MemoryPlan plan;
  plan.limits = limits;
  plan.offset.assign(graph.tensors.size(), 0);
  plan.stride.assign(graph.tensors.size(), 0);

  const std::vector<size_t> last = last_readers(graph);
  std::vector<Block> blocks;
  std::vector<size_t> block_of(graph.tensors.size(), 0);
  for (size_t index = 0; index < graph.ops.size(); ++index) {
    const Op& op = graph.ops[index];
    for (const TensorId id : op.outputs) {
      plan.stride[id] = row_stride(graph.tensors[id]);
      const bool in_place = can_work_in_place(op.kind) && last[op.inputs[0]] == index;
      if (in_place) {
        block_of[id] = block_of[op.inputs[0]];
        blocks[block_of[id]].last_op = last[id];
      } else {
        block_of[id] = blocks.size();
        blocks.push_back({checked_bytes(graph.tensors[id], limits), index, last[id], 0});
      }
    }
  }

  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  std::vector<Block> placed;
  for (const size_t index : order) {
    Block& block = blocks[index];
    block.offset = first_fit(block, placed);
    placed.push_back(block);
    plan.arena_bytes = std::max(plan.arena_bytes, block.offset + block.bytes);
  }
  for (const Op& op : graph.ops) {
    for (const TensorId id : op.outputs) plan.offset[id] = blocks[block_of[id]].offset;
  }
  return plan;
}

}  // namespace tessera
