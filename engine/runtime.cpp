#include "engine/runtime.h"

#include <algorithm>
#include <utility>

#include "engine/model.h"
#include "engine/value_or_throw.h"

namespace tessera {

Runtime::Runtime(const Model& model, RuntimePlan plan)
    : model_(model),
      memory_(std::move(plan.memory)),
      limits_(plan.limits),
      window_ring_(plan.window_ring),
      backend_(std::move(plan.backend)),
      kv_(value_or_throw(backend_->create_kv(plan.kv, kv_pages()))) {
  const Graph& graph = model.graph();
  for (const Weight& weight : graph.weights)
    weights_.push_back(value_or_throw(backend_->adopt(model.file().require(weight.name))));
  program_ = value_or_throw(backend_->compile(graph, plan_memory(graph, limits_), weights_, *kv_));
}

Runtime::Runtime(const Model& model, const SessionOptions& options)
    : Runtime(model, plan_runtime(model, options)) {}

size_t Runtime::context() const {
  return std::min<size_t>(memory_.context, model_.hyperparameters().context);
}

size_t Runtime::kv_pages() const { return (memory_.context + kKvPageTokens - 1) / kKvPageTokens; }

WindowPages Runtime::window_pages() const {
  return {kv_->geometry().window_pages, window_ring_,
          static_cast<size_t>(model_.hyperparameters().sliding_window)};
}

size_t Runtime::vocabulary() const {
  const Graph& graph = model_.graph();
  return graph.tensors[graph.logits].columns;
}

std::vector<ProgramPart> Runtime::parts() {
  std::vector<ProgramPart> split = parts_of(*backend_, *program_, *kv_);
  if (!split.empty()) return split;
  return {{*backend_, model_.graph(), weights_, *kv_}};
}

}  // namespace tessera
