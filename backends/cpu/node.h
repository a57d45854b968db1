// One step of a compiled program. All threads of the pool enter execute together. Work inside a step is cut
// into tasks that threads draw from a counter, so a thread that is held up by another process only delays its
// own task.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backends/cpu/kernels/kernels.h"
#include "backends/cpu/kv_page.h"
#include "backends/cpu/placed_weights.h"
#include "backends/cpu/split_attention.h"
#include "graph/batch.h"
#include "graph/graph.h"
#include "graph/memory_plan.h"

namespace tessera::cpu {

// Cosines and sines of every row's position for one list of inverse frequencies: [rows][half] each.
struct RopeTable {
  std::vector<double> inverse_frequency;
  std::vector<float> cosines;
  std::vector<float> sines;
  size_t half() const { return inverse_frequency.size(); }
};

// Everything a step may look at while it runs.
struct RunState {
  const Batch* batch = nullptr;
  std::vector<size_t> position;  // per token row
  std::vector<RopeTable> rope;
  float* logits = nullptr;  // [output rows][vocabulary]
};

// An activation in the arena, or the caller's logits.
struct View {
  std::byte* base = nullptr;  // null: the run's logits
  size_t stride = 0;          // bytes
  size_t columns = 0;
  RowExtent extent = RowExtent::tokens;
  ElementType type = ElementType::f32;

  size_t rows(const RunState& run) const {
    return extent == RowExtent::tokens ? run.batch->tokens.size() : run.batch->output_rows.size();
  }
  float* floats(const RunState& run, size_t row) const {
    if (base == nullptr) return run.logits + row * columns;
    return reinterpret_cast<float*>(base + row * stride);
  }
  uint8_t* bytes(size_t row) const { return reinterpret_cast<uint8_t*>(base + row * stride); }
};

class Node {
 public:
  virtual ~Node() = default;
  // Called by one thread before the run.
  virtual void prepare(const RunState& run) {
    (void)run;
    next_.store(0, std::memory_order_relaxed);
  }
  // Called by every thread at once; scratch is this thread's, scratch_bytes() or more, aligned to a page.
  virtual void execute(const RunState& run, size_t thread, std::span<std::byte> scratch) = 0;
  virtual size_t scratch_bytes() const { return 0; }

 protected:
  // Tasks are numbered from 0; a thread stops at the first number beyond the last task.
  size_t next_task() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<size_t> next_{0};
};

// A stored tensor in the mapped file.
class CpuWeight : public AdoptedWeight {
 public:
  explicit CpuWeight(const StoredTensor& stored) : AdoptedWeight(stored), tensor(stored) {}
  StoredTensor tensor;
};

// What every node maker needs.
struct NodeContext {
  const Graph* graph = nullptr;
  const Kernels* kernels = nullptr;
  size_t threads = 1;
  PagedKv* kv = nullptr;
  SplitAttention* split_attention = nullptr;
  const Placement* placement = nullptr;  // where weights are to lie; null: where they are
  std::span<const WeightHandle> weights;
  std::vector<View> views;  // per TensorId
  RunState* run = nullptr;  // where rope tables are registered

  const StoredTensor& weight(WeightId id) const { return static_cast<const CpuWeight&>(*weights[id]).tensor; }
  const float* vector(WeightId id) const { return reinterpret_cast<const float*>(weight(id).bytes.data()); }
};

using NodeList = std::vector<std::unique_ptr<Node>>;

// One maker per op kind, each in the file of its job; attention becomes two nodes (store, then attend).
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Embed& embed);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const AddPosition& add);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Input& input);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Norm& norm);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Linear& linear);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const HeadNorm& norm);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Rope& rope);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Gate& gate);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const SoftCap& cap);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const RotatedGain& rotated);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Quantize& quantize);
std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Gather& gather);
std::unique_ptr<Node> make_kv_store_node(const NodeContext& context, const Op& op,
                                         const Attention& attention);
std::unique_ptr<Node> make_attend_node(const NodeContext& context, const Op& op, const Attention& attention);

}  // namespace tessera::cpu
