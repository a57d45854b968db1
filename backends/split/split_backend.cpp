#include "backends/split/split_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "graph/split_graph.h"

namespace tessera {

namespace {

// The stored tensor itself: which backend adopts it is known when a graph is split.
class SplitWeight : public AdoptedWeight {
 public:
  explicit SplitWeight(const StoredTensor& stored) : AdoptedWeight(stored), tensor(stored) {}
  const StoredTensor tensor;
};

class SplitKv : public KvStorage {
 public:
  SplitKv(const KvGeometry& geometry, size_t pages, std::unique_ptr<KvStorage> first_part,
          std::unique_ptr<KvStorage> second_part)
      : KvStorage(geometry, pages), first(std::move(first_part)), second(std::move(second_part)) {}
  std::unique_ptr<KvStorage> first;
  std::unique_ptr<KvStorage> second;
};

// One part of the graph on its backend.
struct CompiledPart {
  GraphPart part;
  std::vector<WeightHandle> weights;  // one for each of part.graph.weights
  std::unique_ptr<Program> program;

  // all_weights: of the whole graph.
  Status compile(Backend& backend, const PlanLimits& limits, std::span<const WeightHandle> all_weights,
                 KvStorage& kv) {
    for (const WeightId id : part.weights) {
      auto adopted = backend.adopt(static_cast<const SplitWeight&>(*all_weights[id]).tensor);
      if (!adopted.ok()) return Status::failure(adopted.error());
      weights.push_back(std::move(adopted.value()));
    }
    try {
      auto made = backend.compile(part.graph, plan_memory(part.graph, limits), weights, kv);
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
  explicit SplitProgram(SplitGraph graphs) {
    first_.part = std::move(graphs.first);
    second_.part = std::move(graphs.second);
  }

  Status compile(Backend& first, Backend& second, const PlanLimits& limits,
                 std::span<const WeightHandle> weights, SplitKv& kv) {
    // The second part reads a row for every token, so each of them is an output row of the first.
    const PlanLimits all_rows{limits.max_tokens, limits.max_tokens};
    if (Status status = first_.compile(first, all_rows, weights, *kv.first); !status.ok()) return status;
    return second_.compile(second, limits, weights, *kv.second);
  }

  CompiledPart& first() { return first_; }
  CompiledPart& second() { return second_; }

  size_t most_best() const override { return second_.program->most_best(); }

 protected:
  Status execute(const Batch& batch, std::span<float> logits) override {
    if (Status status = run_first(batch); !status.ok()) return status;
    return second_.program->run(batch_of_second(batch), logits);
  }

  Status execute_best(const Batch& batch, size_t count, std::span<TokenLogit> best) override {
    if (Status status = run_first(batch); !status.ok()) return status;
    return second_.program->run_best(batch_of_second(batch), count, best);
  }

 private:
  Status run_first(const Batch& batch) {
    all_rows_.resize(batch.tokens.size());
    std::iota(all_rows_.begin(), all_rows_.end(), 0u);
    residual_.resize(all_rows_.size() * input_columns(second_.part.graph));
    return first_.program->run({batch.tokens, batch.sequences, all_rows_, batch.input}, residual_);
  }

  Batch batch_of_second(const Batch& batch) const {
    return {batch.tokens, batch.sequences, batch.output_rows, residual_};
  }

  CompiledPart first_;
  CompiledPart second_;
  std::vector<uint32_t> all_rows_;
  std::vector<float> residual_;  // [tokens, hidden size]: what the first part gives to the second
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

  KvPageBytes kv_page_bytes(const KvGeometry& geometry) const override {
    const KvPageBytes first = first_->kv_page_bytes(first_layers(geometry, layers_));
    const KvPageBytes second = second_->kv_page_bytes(other_layers(geometry, layers_));
    return {first.full + second.full, first.window + second.window};
  }

 protected:
  Result<std::unique_ptr<KvStorage>> make_kv(const KvGeometry& geometry, size_t pages) override {
    auto first = first_->create_kv(first_layers(geometry, layers_), pages);
    if (!first.ok()) return first;
    auto second = second_->create_kv(other_layers(geometry, layers_), pages);
    if (!second.ok()) return second;
    return {std::make_unique<SplitKv>(geometry, pages, std::move(first.value()), std::move(second.value()))};
  }

  Result<WeightHandle> make_weight(const StoredTensor& tensor) override {
    return {std::make_unique<SplitWeight>(tensor)};
  }

  Result<std::unique_ptr<Program>> make_program(const Graph& graph, const MemoryPlan& plan,
                                                std::span<const WeightHandle> weights,
                                                KvStorage& kv) override {
    using Outcome = Result<std::unique_ptr<Program>>;
    std::optional<SplitGraph> graphs = split_graph(graph, layers_);
    if (!graphs) return Outcome::failure(fmt::format("the graph cannot be split before layer {}", layers_));
    auto program = std::make_unique<SplitProgram>(std::move(*graphs));
    const Status status =
        program->compile(*first_, *second_, plan.limits, weights, static_cast<SplitKv&>(kv));
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
  part.slides.resize(std::min(part.layers, geometry.slides.size()));
  return part;
}

KvGeometry other_layers(const KvGeometry& geometry, size_t layers) {
  const size_t skipped = std::min(layers, geometry.layers);
  KvGeometry part = geometry;
  part.layers = geometry.layers - skipped;
  part.first_layers_16bit = geometry.first_layers_16bit - std::min(skipped, geometry.first_layers_16bit);
  const size_t of_first = std::min(skipped, geometry.slides.size());
  part.slides.erase(part.slides.begin(), part.slides.begin() + static_cast<std::ptrdiff_t>(of_first));
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
  CompiledPart& first = programs->first();
  CompiledPart& second = programs->second();
  return {{both->first(), first.part.graph, first.weights, *caches->first},
          {both->second(), second.part.graph, second.weights, *caches->second}};
}

}  // namespace tessera
