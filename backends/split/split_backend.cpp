#include "backends/split/split_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "graph/split_graph.h"

namespace tessera {

namespace {

// Remembers a tensor until it is known which part reads it.
class SplitWeight : public AdoptedWeight {
 public:
  explicit SplitWeight(StoredTensor stored) : tensor(std::move(stored)) {}
  StoredTensor tensor;
};

class SplitKv : public KvStorage {
 public:
  SplitKv(std::unique_ptr<KvStorage> first_part, std::unique_ptr<KvStorage> second_part)
      : first(std::move(first_part)), second(std::move(second_part)) {}
  std::unique_ptr<KvStorage> first;
  std::unique_ptr<KvStorage> second;
};

// One part of the graph on its backend.
struct Part {
  GraphPart of;
  std::vector<WeightHandle> weights;
  std::unique_ptr<Program> program;

  Status compile(Backend& backend, const PlanLimits& limits, std::span<const SplitWeight* const> stored,
                 KvStorage& kv) {
    for (const WeightId id : of.weights) {
      auto adopted = backend.adopt(stored[id]->tensor);
      if (!adopted.ok()) return Status::failure(adopted.error());
      weights.push_back(std::move(adopted.value()));
    }
    try {
      auto made = backend.compile(of.graph, plan_memory(of.graph, limits), weights, kv);
      if (!made.ok()) return Status::failure(made.error());
      program = std::move(made.value());
    } catch (const std::runtime_error& error) {  // more activations than can be addressed
      return Status::failure(error.what());
    }
    return Status::success();
  }
};

class SplitProgram : public Program {
 public:
  SplitProgram(SplitGraph graphs, const PlanLimits& limits) : limits_(limits) {
    first_.of = std::move(graphs.first);
    second_.of = std::move(graphs.second);
  }

  Status compile(Backend& first, Backend& second, std::span<const SplitWeight* const> stored, SplitKv& kv) {
    // Every row is handed over.
    if (Status status = first_.compile(first, {limits_.max_tokens, limits_.max_tokens}, stored, *kv.first);
        !status.ok())
      return status;
    return second_.compile(second, limits_, stored, *kv.second);
  }

  Status run(const Batch& batch, std::span<float> logits) override {
    if (Status status = run_first(batch); !status.ok()) return status;
    return second_.program->run(rest_of(batch), logits);
  }

  Part& first() { return first_; }
  Part& second() { return second_; }

  size_t most_best() const override { return second_.program->most_best(); }

  Status run_best(const Batch& batch, size_t count, std::span<TokenLogit> best) override {
    if (Status status = run_first(batch); !status.ok()) return status;
    return second_.program->run_best(rest_of(batch), count, best);
  }

 private:
  Status run_first(const Batch& batch) {
    if (batch.tokens.size() > limits_.max_tokens)
      return Status::failure(fmt::format("batch of {} tokens: at most {} were planned", batch.tokens.size(),
                                         limits_.max_tokens));
    rows_.resize(batch.tokens.size());
    std::iota(rows_.begin(), rows_.end(), 0u);
    handed_over_.resize(rows_.size() * input_columns(second_.of.graph));
    return first_.program->run({batch.tokens, batch.sequences, rows_, batch.input}, handed_over_);
  }

  Batch rest_of(const Batch& batch) const {
    return {batch.tokens, batch.sequences, batch.output_rows, handed_over_};
  }

  PlanLimits limits_;
  Part first_;
  Part second_;
  std::vector<uint32_t> rows_;
  std::vector<float> handed_over_;  // [tokens, hidden size]
};

class SplitBackend : public Backend {
 public:
  SplitBackend(std::unique_ptr<Backend> first, std::unique_ptr<Backend> second, size_t layers)
      : first_(std::move(first)), second_(std::move(second)), layers_(layers) {}

  Backend& first() { return *first_; }
  Backend& second() { return *second_; }

  std::string describe() const override {
    return fmt::format("{} layers on {}; the rest on {}", layers_, first_->describe(), second_->describe());
  }

  size_t kv_page_bytes(const KvGeometry& geometry) const override {
    return first_->kv_page_bytes(first_layers(geometry, layers_)) +
           second_->kv_page_bytes(other_layers(geometry, layers_));
  }

  Result<std::unique_ptr<KvStorage>> create_kv(const KvGeometry& geometry, size_t pages) override {
    auto first = first_->create_kv(first_layers(geometry, layers_), pages);
    if (!first.ok()) return first;
    auto second = second_->create_kv(other_layers(geometry, layers_), pages);
    if (!second.ok()) return second;
    return {std::make_unique<SplitKv>(std::move(first.value()), std::move(second.value()))};
  }

  Result<WeightHandle> adopt(const StoredTensor& tensor) override {
    return {std::make_unique<SplitWeight>(tensor)};
  }

  Result<std::unique_ptr<Program>> compile(const Graph& graph, const MemoryPlan& plan,
                                           std::span<const WeightHandle> weights, KvStorage& kv) override {
    using Outcome = Result<std::unique_ptr<Program>>;
    if (std::string fault = check_graph(graph); !fault.empty()) return Outcome::failure(std::move(fault));
    auto* split_kv = dynamic_cast<SplitKv*>(&kv);
    if (split_kv == nullptr) return Outcome::failure("the kv cache belongs to another backend");
    if (weights.size() != graph.weights.size())
      return Outcome::failure(
          fmt::format("expected {} weights, found {}", graph.weights.size(), weights.size()));
    std::vector<const SplitWeight*> stored;
    for (size_t id = 0; id < weights.size(); ++id) {
      stored.push_back(dynamic_cast<const SplitWeight*>(weights[id].get()));
      if (stored.back() == nullptr)
        return Outcome::failure(
            fmt::format("weight \"{}\" was not adopted by this backend", graph.weights[id].name));
    }
    std::optional<SplitGraph> graphs = split_graph(graph, layers_);
    if (!graphs) return Outcome::failure(fmt::format("the graph cannot be split before layer {}", layers_));
    auto program = std::make_unique<SplitProgram>(std::move(*graphs), plan.limits);
    const Status status = program->compile(*first_, *second_, stored, *split_kv);
    if (!status.ok()) return Outcome::failure(status.error());
    return Outcome(std::move(program));
  }

 private:
  std::unique_ptr<Backend> first_;
  std::unique_ptr<Backend> second_;
  size_t layers_;
};

}  // namespace

KvGeometry first_layers(const KvGeometry& geometry, size_t layers) {
  KvGeometry part = geometry;
  part.layers = std::min(layers, geometry.layers);
  part.first_layers_16bit = std::min(part.layers, geometry.first_layers_16bit);
  return part;
}

KvGeometry other_layers(const KvGeometry& geometry, size_t layers) {
  const size_t skipped = std::min(layers, geometry.layers);
  KvGeometry part = geometry;
  part.layers = geometry.layers - skipped;
  part.first_layers_16bit = geometry.first_layers_16bit - std::min(skipped, geometry.first_layers_16bit);
  return part;
}

std::unique_ptr<Backend> make_split_backend(std::unique_ptr<Backend> first, std::unique_ptr<Backend> second,
                                            size_t layers) {
  return std::make_unique<SplitBackend>(std::move(first), std::move(second), layers);
}

std::vector<ProgramPart> parts_of(Backend& backend, Program& program, KvStorage& kv) {
  auto* both = dynamic_cast<SplitBackend*>(&backend);
  auto* programs = dynamic_cast<SplitProgram*>(&program);
  auto* caches = dynamic_cast<SplitKv*>(&kv);
  if (both == nullptr || programs == nullptr || caches == nullptr) return {};
  Part& first = programs->first();
  Part& second = programs->second();
  return {{both->first(), first.of.graph, first.weights, *caches->first},
          {both->second(), second.of.graph, second.weights, *caches->second}};
}

}  // namespace tessera
