// A graph compiled for the device: steps for each op, queued in order. A batch in which every sequence has
// one token is a decoding step; its steps are recorded when a batch with the same DeviceBatch::key() runs for
// the second time, and replayed from then on.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "backends/backend.h"
#include "backends/cuda/device_batch.h"
#include "backends/cuda/device_kv.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/uploaded_weight.h"

namespace tessera::cuda {

// Decoding steps of one DeviceBatch::key().
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

// A Rotation (graph/rotation.h) in device memory, in single precision.
struct DeviceRotation {
  DeviceMemory signs;   // [size]
  DeviceMemory factor;  // [order, order]
  uint32_t order = 1;
};

// What attention ops of one kind multiply distances and queries by.
struct AttentionTable {
  Attention kind;
  std::vector<float> factors;  // slopes by head, then factors of queries by position
  DeviceMemory memory;         // the same; either part may be empty
};

class CudaProgram : public Program {
 public:
  // Arguments have passed the checks of Backend::compile. Fails with one line: sizes beyond those of the
  // kernels, no memory.
  static Result<std::unique_ptr<Program>> create(Queue& queue, const Graph& graph, const MemoryPlan& plan,
                                                 std::span<const WeightHandle> weights, DeviceKv& kv);
  size_t most_best() const override;

  // The number of recorded decoding steps.
  size_t recordings() const;

 protected:
  Status execute(const Batch& batch, std::span<float> logits) override;
  Status execute_best(const Batch& batch, size_t count, std::span<TokenLogit> best) override;

 private:
  CudaProgram(Queue& queue, const Graph& graph, const MemoryPlan& plan, std::span<const WeightHandle> weights,
              DeviceKv& kv, std::vector<AttentionShape> attention);
  std::string allocate();
  std::string add_rope_table(const Op& op, const Rope& kind);
  std::string add_rotation(const Op& op);
  std::string add_attention_table(const Op& op, const Attention& kind);
  Status load(const Batch& batch);
  void queue_steps(const Batch& batch);
  void queue_decoding_step();
  Status reserve_best(size_t count);
  Status finished();

  // Adds the steps of an op; one overload for each kind.
  void add(const Op& op, const Embed& kind);
  void add(const Op& op, const AddPosition& kind);
  void add(const Op& op, const Input& kind);
  void add(const Op& op, const Norm& kind);
  void add(const Op& op, const Linear& kind);
  void add(const Op& op, const HeadNorm& kind);
  void add(const Op& op, const Rope& kind);
  void add(const Op& op, const Attention& kind);
  void add(const Op& op, const Gate& kind);
  void add(const Op& op, const SoftCap& kind);
  void add(const Op& op, const Quantize& kind);
  void add(const Op& op, const Gather& kind);
  void add(const Op& op, const RotatedGain& kind);
  const RopeTable& rope_table_of(const Rope& kind) const;
  const AttentionTable* attention_table_of(const Attention& kind) const;  // null: no need of one

  Rows rows(TensorId id) const;
  ElementType type(TensorId id) const { return graph_.tensors[id].type; }
  uint32_t columns(TensorId id) const { return static_cast<uint32_t>(graph_.tensors[id].columns); }
  // The number of rows that a tensor of this extent has in the current batch.
  uint32_t count(RowExtent extent) const {
    return extent == RowExtent::outputs ? batch_.outputs() : batch_.rows();
  }

  Queue& queue_;
  const Graph& graph_;
  MemoryPlan plan_;
  std::vector<const UploadedWeight*> weights_;
  DeviceKv& kv_;
  DeviceMemory arena_;
  DeviceMemory records_;  // partial results of attention over split contexts
  DeviceBatch batch_;
  std::optional<TensorId> input_;  // the tensor that Batch::input is copied to
  std::vector<std::unique_ptr<RopeTable>> rope_tables_;
  std::map<uint32_t, DeviceRotation> rotations_;  // by size
  std::vector<std::unique_ptr<AttentionTable>> attention_tables_;
  DeviceMemory best_;  // results of execute_best, then its scratch
  std::vector<std::function<void()>> steps_;
  std::vector<DecodingStep> decoding_steps_;
  uint64_t clock_ = 0;
};

}  // namespace tessera::cuda
