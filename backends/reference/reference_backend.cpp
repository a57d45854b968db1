#include "backends/reference/reference_backend.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "backends/reference/bf16_row.h"
#include "backends/reference/kv_store.h"
#include "backends/reference/ops.h"
#include "backends/reference/quantized_row.h"

namespace tessera {

namespace reference {

void store_row(const Rows& out, size_t row, std::span<const float> values) {
  if (out.type == ElementType::q8) {
    quantize_row(values, out.bytes(row));
  } else if (out.type == ElementType::bf16) {
    round_row(values, out.bytes(row));
  } else {
    std::copy(values.begin(), values.end(), out.floats(row).begin());
  }
}

namespace {

class ReferenceWeight : public AdoptedWeight {
 public:
  explicit ReferenceWeight(const StoredTensor& stored) : AdoptedWeight(stored), tensor(stored) {}
  const StoredTensor tensor;
};

class ReferenceProgram : public Program {
 public:
  ReferenceProgram(const Graph& graph, MemoryPlan plan, std::span<const WeightHandle> weights, KvStore& kv)
      : graph_(graph), plan_(std::move(plan)), kv_(kv), arena_(plan_.arena_bytes) {
    for (const WeightHandle& handle : weights)
      weights_.push_back(&static_cast<const ReferenceWeight&>(*handle).tensor);
  }

  size_t most_best() const override { return vocabulary(); }

 protected:
  Status execute(const Batch& batch, std::span<float> logits) override {
    // All ones are NaN as floats: values that are read before an op writes them show in the result.
    std::fill(arena_.begin(), arena_.end(), std::byte{0xff});
    positions_.clear();
    for (const BatchSequence& sequence : batch.sequences) {
      for (size_t i = 0; i < sequence.token_count; ++i) positions_.push_back(sequence.position + i);
    }
    for (const Op& op : graph_.ops) std::visit([&](const auto& kind) { run_op(op, kind, batch); }, op.kind);
    const Rows result = rows(graph_.logits, batch);
    for (size_t row = 0; row < result.count; ++row) {
      const std::span<const float> from = result.floats(row);
      std::copy(from.begin(), from.end(), logits.subspan(row * vocabulary(), vocabulary()).begin());
    }
    return Status::success();
  }

  Status execute_best(const Batch& batch, size_t count, std::span<TokenLogit> best) override {
    std::vector<float> logits(batch.output_rows.size() * vocabulary());
    if (Status status = execute(batch, logits); !status.ok()) return status;
    for (size_t row = 0; row < batch.output_rows.size(); ++row)
      rank(std::span(logits).subspan(row * vocabulary(), vocabulary()), best.subspan(row * count, count));
    return Status::success();
  }

 private:
  static void rank(std::span<const float> logits, std::span<TokenLogit> best) {
    std::vector<TokenLogit> all;
    for (uint32_t token = 0; token < logits.size(); ++token) {
      if (std::isfinite(logits[token])) all.push_back({logits[token], token});
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const TokenLogit& a, const TokenLogit& b) { return a.logit > b.logit; });
    all.resize(best.size());
    std::copy(all.begin(), all.end(), best.begin());
  }

  size_t vocabulary() const { return graph_.tensors[graph_.logits].columns; }

  Rows rows(TensorId id, const Batch& batch) {
    const Tensor& tensor = graph_.tensors[id];
    const size_t count = tensor.rows == RowExtent::outputs ? batch.output_rows.size() : batch.tokens.size();
    return {arena_.data() + plan_.offset[id], plan_.stride[id], count, tensor.columns, tensor.type};
  }
  Rows input(const Op& op, size_t i, const Batch& batch) { return rows(op.inputs[i], batch); }
  Rows output(const Op& op, size_t i, const Batch& batch) { return rows(op.outputs[i], batch); }

  const StoredTensor& weight(WeightId id) const { return *weights_[id]; }

  void run_op(const Op& op, const Embed& embed, const Batch& batch) {
    run_embed(weight(embed.table), embed.multiplier, batch.tokens, output(op, 0, batch));
  }

  void run_op(const Op& op, const AddPosition& add, const Batch& batch) {
    run_add_position(weight(add.table), positions_, input(op, 0, batch), output(op, 0, batch));
  }

  void run_op(const Op& op, const Input&, const Batch& batch) {
    const Rows to = output(op, 0, batch);
    for (size_t row = 0; row < to.count; ++row) {
      const std::span<const float> from = batch.input.subspan(row * to.columns, to.columns);
      std::copy(from.begin(), from.end(), to.floats(row).begin());
    }
  }

  void run_op(const Op& op, const Norm& norm, const Batch& batch) {
    NormRows tensors = {input(op, 0, batch), std::nullopt, output(op, 0, batch), std::nullopt};
    if (op.inputs.size() == 2) {
      tensors.added = input(op, 1, batch);
      tensors.sum = output(op, 1, batch);
    }
    run_norm(weight(norm.gain), norm.bias ? &weight(*norm.bias) : nullptr, norm, tensors,
             norm.select_rows ? std::optional(batch.output_rows) : std::nullopt);
  }

  void run_op(const Op& op, const Linear& linear, const Batch& batch) {
    size_t column = 0;
    for (const LinearPart& part : linear.parts) {
      const StoredTensor& matrix = weight(part.weight);
      run_linear_part(matrix, part.bias ? &weight(*part.bias) : nullptr, input(op, 0, batch),
                      output(op, 0, batch), column);
      column += matrix.rows();
    }
  }

  void run_op(const Op& op, const HeadNorm& norm, const Batch& batch) {
    run_head_norm(norm, weight(norm.query_gain), weight(norm.key_gain), input(op, 0, batch),
                  output(op, 0, batch));
  }

  void run_op(const Op& op, const Rope& rope, const Batch& batch) {
    run_rope(rope, positions_, input(op, 0, batch), output(op, 0, batch));
  }

  void run_op(const Op& op, const Attention& attention, const Batch& batch) {
    run_attention(attention, batch.sequences, kv_, input(op, 0, batch), output(op, 0, batch));
  }

  void run_op(const Op& op, const Gate& gate, const Batch& batch) {
    run_gate(gate, input(op, 0, batch), output(op, 0, batch));
  }

  void run_op(const Op& op, const SoftCap& cap, const Batch& batch) {
    run_soft_cap(cap, input(op, 0, batch), output(op, 0, batch));
  }

  void run_op(const Op& op, const Quantize&, const Batch& batch) {
    const Rows from = input(op, 0, batch);
    const Rows to = output(op, 0, batch);
    for (size_t row = 0; row < from.count; ++row) store_row(to, row, from.floats(row));
  }

  void run_op(const Op& op, const Gather& gather, const Batch& batch) {
    run_gather(weight(gather.order), input(op, 0, batch), output(op, 0, batch));
  }

  void run_op(const Op& op, const RotatedGain& rotated, const Batch& batch) {
    run_rotated_gain(weight(rotated.gain), input(op, 0, batch), output(op, 0, batch));
  }

  const Graph& graph_;
  MemoryPlan plan_;
  std::vector<const StoredTensor*> weights_;
  KvStore& kv_;
  std::vector<std::byte> arena_;
  std::vector<size_t> positions_;  // of every token of the current batch
};

class ReferenceBackend : public Backend {
 public:
  std::string describe() const override { return "reference, float64 sums, 1 thread"; }

  KvPageBytes kv_page_bytes(const KvGeometry& geometry) const override {
    return KvStore::page_bytes(geometry);
  }

 protected:
  Result<std::unique_ptr<KvStorage>> make_kv(const KvGeometry& geometry, size_t pages) override {
    return {std::make_unique<KvStore>(geometry, pages)};
  }

  Result<WeightHandle> make_weight(const StoredTensor& tensor) override {
    return {std::make_unique<ReferenceWeight>(tensor)};
  }

  Result<std::unique_ptr<Program>> make_program(const Graph& graph, const MemoryPlan& plan,
                                                std::span<const WeightHandle> weights,
                                                KvStorage& kv) override {
    return {std::make_unique<ReferenceProgram>(graph, plan, weights, static_cast<KvStore&>(kv))};
  }
};

}  // namespace

}  // namespace reference

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<reference::ReferenceBackend>(); }

}  // namespace tessera
