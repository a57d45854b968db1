// A graph compiled for the device: one step for each op, queued in order. The steps of a batch in which every
// sequence has one token are recorded when its like comes a second time, and replayed from then on.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "backends/backend.h"
#include "backends/cuda/device_batch.h"
#include "backends/cuda/device_kv.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/uploaded_weight.h"

namespace tessera::cuda {

// One kind of decoding step, by DeviceBatch::key(): seen once, then recorded.
struct DecodingStep {
  std::vector<uint64_t> key;
  std::optional<Recording> recording;
  bool cannot_be_recorded = false;
  uint64_t last_used = 0;
};

// The cosines and sines of the current batch, for one set of frequencies.
struct RopeTable {
  std::vector<double> inverse_frequency;
  DeviceMemory frequencies;
  DeviceMemory cosines;
  DeviceMemory sines;
};

class CudaProgram : public Program {
 public:
  // Fails with one line: a graph, plan, weights or cache that do not fit together or that have no kernels, no
  // memory.
  static Result<std::unique_ptr<Program>> create(Queue& queue, const Graph& graph, const MemoryPlan& plan,
                                                 std::span<const WeightHandle> weights, DeviceKv& kv);
  Status run(const Batch& batch, std::span<float> logits) override;
  size_t most_best() const override;
  Status run_best(const Batch& batch, size_t count, std::span<TokenLogit> best) override;

  // Decoding steps that are replayed.
  size_t recordings() const;

 private:
  CudaProgram(Queue& queue, const Graph& graph, const MemoryPlan& plan,
              std::vector<const UploadedWeight*> weights, DeviceKv& kv, const DeviceBatchLimits& limits,
              std::vector<AttentionShape> attention);
  std::string allocate();
  Status load(const Batch& batch);
  void queue_steps(const Batch& batch);
  void queue_decoding_step();
  Status reserve_best(size_t count);
  Status finished();
  void add(const Op& op);
  void add_embed(const Op& op, const Embed& kind);
  void add_attention(const Op& op, const Attention& kind);
  void add_linear(const Op& op, const Linear& kind);
  void add_norm(const Op& op, const Norm& kind);
  void add_rope(const Op& op, const Rope& kind);
  const RopeTable& rope_table_of(const Rope& kind) const;

  Rows rows(TensorId id) const;
  ElementType type(TensorId id) const { return graph_.tensors[id].type; }
  uint32_t columns(TensorId id) const { return static_cast<uint32_t>(graph_.tensors[id].columns); }
  // Rows of a tensor in the current batch.
  uint32_t count(RowExtent extent) const {
    return extent == RowExtent::outputs ? batch_.outputs() : batch_.rows();
  }

  Queue& queue_;
  const Graph& graph_;
  MemoryPlan plan_;
  std::vector<const UploadedWeight*> weights_;
  DeviceKv& kv_;
  DeviceMemory arena_;
  DeviceMemory records_;  // of attention over split contexts
  DeviceBatch batch_;
  std::optional<TensorId> input_;  // rows that a batch brings
  std::vector<std::unique_ptr<RopeTable>> rope_tables_;
  DeviceMemory best_;  // of run_best: the results, then scratch
  std::vector<std::function<void()>> steps_;
  std::vector<DecodingStep> decoding_steps_;
  uint64_t clock_ = 0;
};

}  // namespace tessera::cuda
