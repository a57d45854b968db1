// A model that is ready to run: a backend with its weights, the compiled graph and the memory of the KV
// cache. It knows nothing of sequences: who calls its program says which pages hold what. One thread at a
// time.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/split/split_backend.h"
#include "engine/kv_cache/sequences.h"
#include "engine/runtime_plan.h"

namespace tessera {

class Runtime {
 public:
  // Loads the weights and compiles as planned. The model must outlive the runtime. Throws std::runtime_error.
  Runtime(const Model& model, RuntimePlan plan);
  Runtime(const Model& model, const SessionOptions& options);
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Model& model() const { return model_; }
  const MemoryFigures& memory() const { return memory_; }
  const PlanLimits& limits() const { return limits_; }  // of one run of the program
  size_t context() const;   // most tokens of one sequence: min(KV capacity, the model's context)
  size_t kv_pages() const;  // ids from 0 to this number are pages of the cache
  WindowPages window_pages() const;
  size_t vocabulary() const;  // logits in a row
  Backend& backend() { return *backend_; }
  const Backend& backend() const { return *backend_; }
  Program& program() { return *program_; }
  const Program& program() const { return *program_; }
  KvStorage& kv() { return *kv_; }
  std::vector<WeightHandle>& weights() { return weights_; }  // weights()[i] belongs to graph().weights[i]

  // What runs in each of memory().places, in order, for measuring it alone. They live as long as the runtime.
  std::vector<ProgramPart> parts();

 private:
  const Model& model_;
  MemoryFigures memory_;
  PlanLimits limits_;
  size_t window_ring_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<KvStorage> kv_;
  std::vector<WeightHandle> weights_;
  std::unique_ptr<Program> program_;
};

}  // namespace tessera
