// Decides, before anything is loaded, which backend computes which layers and how many tokens the KV cache
// holds.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "engine/placement.h"
#include "engine/session_options.h"

namespace tessera {

class Model;

// What a model takes of memory. Bytes are sums over all places.
struct MemoryFigures {
  size_t weight_bytes = 0;
  size_t kv_bytes = 0;
  size_t activation_bytes = 0;
  size_t context = 0;  // tokens the KV cache holds
  unsigned kv_bits = 0;
  size_t available_bytes = 0;      // what the machine (or cgroup), or the device, has left before loading
  std::vector<Place> places = {};  // one, or two where layers are split between memories
};

struct RuntimePlan {
  std::unique_ptr<Backend> backend;  // two of them as one where layers are split
  MemoryFigures memory;
  KvGeometry kv;
  size_t window_ring = 0;  // pages that one sequence has at most in layers with a window; 0: none has
  PlanLimits limits;       // of one run
};

// Throws std::runtime_error, with the numbers, when the model cannot fit, and where the backend cannot be
// had.
RuntimePlan plan_runtime(const Model& model, const SessionOptions& options);

}  // namespace tessera
