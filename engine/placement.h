// What a model takes of the memories it is placed in, found out before anything is loaded.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace tessera {

// Layers of a model in one memory.
struct Place {
  std::string name;  // "cpu", "cuda", "reference"
  size_t layers = 0;
  size_t weight_bytes = 0;
  size_t activation_bytes = 0;
  size_t page_bytes = 0;       // a KV page over these layers
  size_t available_bytes = 0;  // 0: nobody knows

  size_t kv_bytes(size_t tokens) const { return (tokens + kKvPageTokens - 1) / kKvPageTokens * page_bytes; }
  bool fits(size_t tokens) const {
    return available_bytes == 0 || weight_bytes + activation_bytes + kv_bytes(tokens) <= available_bytes;
  }
};

// A model as far as its memory goes. The graph must outlive the plan.
struct PlacedModel {
  const Graph& graph;
  std::function<size_t(const Weight&)> stored_bytes;
  KvGeometry kv;
  PlanLimits limits;
};

// What one backend takes and has to give.
struct Memory {
  std::string name;
  const Backend& backend;
  size_t available_bytes = 0;
};

// The whole model in one memory.
Place plan_place(const PlacedModel& model, const Memory& memory);
// Its first layers in one memory and the last `layers` in the other. Empty where the graph cannot be split.
std::vector<Place> plan_places(const PlacedModel& model, const Memory& first, const Memory& last,
                               size_t layers);

// The most layers that fit the memory with so many tokens of KV cache: all of the model, or its last ones and
// the head; 0 when not even one does.
size_t layers_that_fit(const PlacedModel& model, const Memory& memory, size_t tokens);

// What was asked for, as far as places depend on it.
struct PlacementRequest {
  std::optional<size_t> device_layers;  // nothing: all that fit
  size_t context = 0;                   // tokens; 0: nothing was said
  size_t model_context = 0;             // the most a sequence can have
};

// How many of the model's last layers a device gets: those asked for, at most all; otherwise as many as fit
// with the context asked for, or with 4,096 tokens. advice: what to do where that does not fit.
struct DeviceLayers {
  size_t count = 0;
  std::string advice;
};
DeviceLayers choose_device_layers(const PlacedModel& model, const Memory& device,
                                  const PlacementRequest& request);

// Tokens of the KV cache: those asked for; otherwise the model's context, as far as that leaves half of what
// the weights leave, but no fewer than a device's layers were chosen for, and at least a page.
size_t choose_context(const std::vector<Place>& places, const PlacementRequest& request);

// What to do where the model does not fit and fewer layers on a device would not help.
inline constexpr const char* kSmallerCacheAdvice = "a smaller --ctx or --kv needs less";

// The line for places that do not fit with so many tokens; empty when all do. It says how many would.
std::string memory_fault(const std::vector<Place>& places, size_t tokens, unsigned kv_bits,
                         const std::string& advice);

}  // namespace tessera
