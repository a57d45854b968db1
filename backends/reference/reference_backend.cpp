#include "backends/reference/reference_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

#include "backends/reference/batch_check.h"
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
  explicit ReferenceWeight(StoredTensor tensor) : tensor_(std::move(tensor)) {}
  const StoredTensor& tensor() const { return tensor_; }

 private:
  StoredTensor tensor_;
};

class ReferenceProgram : public Program {
 public:
  ReferenceProgram(const Graph& graph, MemoryPlan plan, std::vector<const StoredTensor*> weights, KvStore& kv)
      : graph_(graph),
        plan_(std::move(plan)),
        weights_(std::move(weights)),
        kv_(kv),
        arena_(plan_.arena_bytes),
        limits_{plan_.limits, kv.pages(), std::numeric_limits<size_t>::max()} {
    for (const Op& op : graph.ops) {
      if (const auto* embed = std::get_if<Embed>(&op.kind))
        limits_.vocabulary = std::min(limits_.vocabulary, graph.weights[embed->table].rows);
    }
  }

  Status run(const Batch& batch, std::span<float> logits) override {
    if (std::string fault = batch_fault(batch, limits_); !fault.empty())
      return Status::failure(std::move(fault));
    if (batch.input.size() != batch.tokens.size() * input_columns(graph_))
      return Status::failure(fmt::format("batch: expected {} rows of {} input values, found {} values",
                                         batch.tokens.size(), input_columns(graph_), batch.input.size()));
    const size_t vocabulary = graph_.tensors[graph_.logits].columns;
    const size_t outputs = batch.output_rows.size();
    if (outputs != 0 && logits.size() / outputs < vocabulary)
      return Status::failure(fmt::format("batch: {} logits rows of {} do not fit {} floats", outputs,
                                         vocabulary, logits.size()));
    try {
      // All ones are NaN as floats: an op that reads what none wrote shows.
      std::fill(arena_.begin(), arena_.end(), std::byte{0xff});
      positions_.clear();
      for (const BatchSequence& sequence : batch.sequences) {
        for (size_t i = 0; i < sequence.token_count; ++i) positions_.push_back(sequence.position + i);
      }
      for (const Op& op : graph_.ops) run_op(op, batch);
    } catch (const std::bad_alloc&) {
      return Status::failure("reference backend: out of memory");
    }
    const Rows result = rows(graph_.logits, batch);
    for (size_t row = 0; row < outputs; ++row) {
      const std::span<const float> from = result.floats(row);
      std::copy(from.begin(), from.end(), logits.begin() + static_cast<std::ptrdiff_t>(row * vocabulary));
    }
    return Status::success();
  }

  size_t most_best() const override { return graph_.tensors[graph_.logits].columns; }

  Status run_best(const Batch& batch, size_t count, std::span<TokenLogit> best) override {
    const size_t vocabulary = graph_.tensors[graph_.logits].columns;
    if (count == 0 || count > vocabulary || batch.output_rows.size() > best.size() / count)
      return Status::failure(fmt::format("{} best logits of {} for {} rows do not fit {} places", count,
                                         vocabulary, batch.output_rows.size(), best.size()));
    try {
      std::vector<float> logits(batch.output_rows.size() * vocabulary);
      if (Status status = run(batch, logits); !status.ok()) return status;
      for (size_t row = 0; row < batch.output_rows.size(); ++row)
        rank(std::span(logits).subspan(row * vocabulary, vocabulary), best.subspan(row * count, count));
      return Status::success();
    } catch (const std::bad_alloc&) {
      return Status::failure("reference backend: out of memory");
    }
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

  Rows rows(TensorId id, const Batch& batch) {
    const Tensor& tensor = graph_.tensors[id];
    const size_t count = tensor.rows == RowExtent::outputs ? batch.output_rows.size() : batch.tokens.size();
    return {arena_.data() + plan_.offset[id], plan_.stride[id], count, tensor.columns, tensor.type};
  }

  const StoredTensor& weight(WeightId id) const { return *weights_[id]; }

  void run_op(const Op& op, const Batch& batch) {
    const auto in = [&](size_t i) { return rows(op.inputs[i], batch); };
    const auto out = [&](size_t i) { return rows(op.outputs[i], batch); };
    if (const auto* embed = std::get_if<Embed>(&op.kind)) {
      run_embed(weight(embed->table), batch.tokens, out(0));
    } else if (std::holds_alternative<Input>(op.kind)) {
      const Rows to = out(0);
      for (size_t row = 0; row < to.count; ++row) {
        const std::span<const float> from = batch.input.subspan(row * to.columns, to.columns);
        std::copy(from.begin(), from.end(), to.floats(row).begin());
      }
    } else if (const auto* norm = std::get_if<Norm>(&op.kind)) {
      NormRows tensors = {in(0), std::nullopt, out(0), std::nullopt};
      if (op.inputs.size() == 2) {
        tensors.added = in(1);
        tensors.sum = out(1);
      }
      run_norm(weight(norm->gain), norm->epsilon, tensors,
               norm->select_rows ? std::optional(batch.output_rows) : std::nullopt);
    } else if (const auto* linear = std::get_if<Linear>(&op.kind)) {
      size_t column = 0;
      for (const LinearPart& part : linear->parts) {
        const StoredTensor& matrix = weight(part.weight);
        run_linear_part(matrix, part.bias ? &weight(*part.bias) : nullptr, in(0), out(0), column);
        column += matrix.rows();
      }
    } else if (const auto* rope = std::get_if<Rope>(&op.kind)) {
      run_rope(*rope, positions_, in(0), out(0));
    } else if (const auto* attention = std::get_if<Attention>(&op.kind)) {
      run_attention(*attention, batch.sequences, kv_, in(0), out(0));
    } else if (std::holds_alternative<Gate>(op.kind)) {
      run_gate(in(0), out(0));
    } else {
      const Rows from = in(0);
      for (size_t row = 0; row < from.count; ++row) store_row(out(0), row, from.floats(row));
    }
  }

  const Graph& graph_;
  MemoryPlan plan_;
  std::vector<const StoredTensor*> weights_;
  KvStore& kv_;
  std::vector<std::byte> arena_;
  BatchLimits limits_;
  std::vector<size_t> positions_;  // of every token of the current batch
};

std::string weight_fault(const Weight& wanted, const ReferenceWeight* found) {
  if (found == nullptr) return fmt::format("weight \"{}\" was not adopted by this backend", wanted.name);
  const StoredTensor& tensor = found->tensor();
  if (tensor.scheme != wanted.scheme || tensor.rows() != wanted.rows || tensor.columns() != wanted.columns)
    return fmt::format("weight \"{}\": expected {} [{}, {}], found {} [{}, {}]", wanted.name,
                       scheme_name(wanted.scheme), wanted.rows, wanted.columns, scheme_name(tensor.scheme),
                       tensor.rows(), tensor.columns());
  return {};
}

// A matrix used as a vector, or the other way round, would be read by the wrong layout.
std::string rank_fault(const Graph& graph, std::span<const StoredTensor* const> weights) {
  const auto rank = [&](WeightId id, size_t wanted) -> std::string {
    const size_t found = weights[id]->shape.size();
    if (found == wanted) return {};
    return fmt::format("weight \"{}\": expected rank {}, found {}", graph.weights[id].name, wanted, found);
  };
  for (const Op& op : graph.ops) {
    std::string fault;
    if (const auto* embed = std::get_if<Embed>(&op.kind)) {
      fault = rank(embed->table, 2);
    } else if (const auto* norm = std::get_if<Norm>(&op.kind)) {
      fault = rank(norm->gain, 1);
    } else if (const auto* linear = std::get_if<Linear>(&op.kind)) {
      for (const LinearPart& part : linear->parts) {
        if (fault.empty()) fault = rank(part.weight, 2);
        if (fault.empty() && part.bias) fault = rank(*part.bias, 1);
      }
    }
    if (!fault.empty()) return fault;
  }
  return {};
}

std::string plan_fault(const Graph& graph, const MemoryPlan& plan) {
  if (plan.offset.size() != graph.tensors.size() || plan.stride.size() != graph.tensors.size())
    return "the memory plan belongs to another graph";
  for (size_t id = 0; id < graph.tensors.size(); ++id) {
    const Tensor& tensor = graph.tensors[id];
    const size_t count = tensor.rows == RowExtent::outputs ? plan.limits.max_outputs : plan.limits.max_tokens;
    const size_t stride = plan.stride[id];
    if (stride < row_stride(tensor) || stride % 64 != 0 || plan.offset[id] % 64 != 0 ||
        plan.offset[id] > plan.arena_bytes || count > (plan.arena_bytes - plan.offset[id]) / stride)
      return fmt::format("the memory plan has no room for tensor \"{}\"", tensor.name);
  }
  return {};
}

std::string attention_fault(const Graph& graph, const KvGeometry& kv) {
  for (const Op& op : graph.ops) {
    const auto* attention = std::get_if<Attention>(&op.kind);
    if (attention == nullptr) continue;
    if (attention->layer >= kv.layers || attention->kv_heads != kv.kv_heads ||
        attention->head_dim != kv.head_dim)
      return fmt::format(
          "op \"{}\": layer {} with {} kv heads of {} does not fit a kv cache of {} layers, {} heads of {}",
          op.name, attention->layer, attention->kv_heads, attention->head_dim, kv.layers, kv.kv_heads,
          kv.head_dim);
  }
  return {};
}

class ReferenceBackend : public Backend {
 public:
  std::string describe() const override { return "reference, float64 sums, 1 thread"; }

  size_t kv_page_bytes(const KvGeometry& geometry) const override {
    return KvStore::page_values(geometry).value_or(0) * sizeof(double);
  }

  Result<std::unique_ptr<KvStorage>> create_kv(const KvGeometry& geometry, size_t pages) override {
    using Outcome = Result<std::unique_ptr<KvStorage>>;
    if (std::string fault = kv_fault(geometry); !fault.empty()) return Outcome::failure(std::move(fault));
    const size_t page = *KvStore::page_values(geometry);
    try {
      if (page != 0 && pages > std::numeric_limits<size_t>::max() / sizeof(double) / page)
        throw std::bad_alloc();
      return Outcome(std::make_unique<KvStore>(geometry, pages));
    } catch (const std::bad_alloc&) {
    } catch (const std::length_error&) {
    }
    return Outcome::failure(
        fmt::format("kv cache: no memory for {} pages of {} bytes", pages, page * sizeof(double)));
  }

  Result<WeightHandle> adopt(const StoredTensor& tensor) override {
    using Outcome = Result<WeightHandle>;
    if (tensor.scheme == Scheme::u8 || tensor.scheme == Scheme::u32)
      return Outcome::failure(fmt::format("tensor \"{}\": expected weights, found scheme {}", tensor.name,
                                          scheme_name(tensor.scheme)));
    const std::optional<uint64_t> bytes = stored_bytes(tensor.scheme, tensor.shape);
    if (!bytes || *bytes != tensor.bytes.size())
      return Outcome::failure(fmt::format("tensor \"{}\": expected {} bytes, found {}", tensor.name,
                                          bytes.value_or(0), tensor.bytes.size()));
    return Outcome(std::make_unique<ReferenceWeight>(tensor));
  }

  Result<std::unique_ptr<Program>> compile(const Graph& graph, const MemoryPlan& plan,
                                           std::span<const WeightHandle> weights, KvStorage& kv) override {
    using Outcome = Result<std::unique_ptr<Program>>;
    if (std::string fault = check_graph(graph); !fault.empty()) return Outcome::failure(std::move(fault));
    if (weights.size() != graph.weights.size())
      return Outcome::failure(
          fmt::format("expected {} weights, found {}", graph.weights.size(), weights.size()));
    std::vector<const StoredTensor*> tensors;
    for (size_t id = 0; id < weights.size(); ++id) {
      const auto* weight = dynamic_cast<const ReferenceWeight*>(weights[id].get());
      if (std::string fault = weight_fault(graph.weights[id], weight); !fault.empty())
        return Outcome::failure(std::move(fault));
      tensors.push_back(&weight->tensor());
    }
    auto* store = dynamic_cast<KvStore*>(&kv);
    if (store == nullptr) return Outcome::failure("the kv cache belongs to another backend");
    for (std::string fault :
         {rank_fault(graph, tensors), plan_fault(graph, plan), attention_fault(graph, store->geometry())}) {
      if (!fault.empty()) return Outcome::failure(std::move(fault));
    }
    try {
      return Outcome(std::make_unique<ReferenceProgram>(graph, plan, std::move(tensors), *store));
    } catch (const std::bad_alloc&) {
    } catch (const std::length_error&) {
    }
    return Outcome::failure(fmt::format("no memory for {} bytes of activations", plan.arena_bytes));
  }
};

}  // namespace

}  // namespace reference

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<reference::ReferenceBackend>(); }

}  // namespace tessera
