// How much memory a model takes where its layers are placed, computed before anything is loaded.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace tessera {

// Layers of a model in one memory.
struct Place {
  std::string name;        // of the backend that computes them
  bool on_device = false;  // the memory is a device's, not the machine's
  size_t layers = 0;
  size_t weight_bytes = 0;
  size_t activation_bytes = 0;
  KvPageBytes page_bytes;      // a KV page over these layers
  size_t window_pages = 0;     // at most so many pages of layers with a window
  size_t available_bytes = 0;  // 0: unknown

  size_t kv_bytes(size_t tokens) const {
    const size_t pages = (tokens + kKvPageTokens - 1) / kKvPageTokens;
    return pages * page_bytes.full + std::min(pages, window_pages) * page_bytes.window;
  }
  // Pages of a cache of at most that many bytes.
  size_t pages_in(size_t bytes) const;
  bool fits(size_t tokens) const {
    return available_bytes == 0 || weight_bytes + activation_bytes + kv_bytes(tokens) <= available_bytes;
  }
};

// What decides how much memory a model takes. The graph must outlive it.
struct PlacedModel {
  const Graph& graph;
  std::function<size_t(const Weight&)> stored_bytes;
  KvGeometry kv;
  PlanLimits limits;
};

// A memory that layers can be placed in, and the backend that computes there.
struct Memory {
  std::string name;  // the backend's
  const Backend& backend;
  size_t available_bytes = 0;  // 0: unknown
  bool on_device = false;
};

// The whole model in one memory.
Place plan_place(const PlacedModel& model, const Memory& memory);
// Its first layers in one memory and the last `layers` in the other. Empty where the graph cannot be split
// there.
std::vector<Place> plan_places(const PlacedModel& model, const Memory& first, const Memory& last,
                               size_t layers);

// The largest number of layers that fit the memory beside a KV cache of `tokens` tokens: all of the model, or
// its last ones with the head; 0 when not even one fits.
size_t layers_that_fit(const PlacedModel& model, const Memory& memory, size_t tokens);

// The options that places depend on.
struct PlacementRequest {
  std::optional<size_t> device_layers;  // nothing: all that fit
  size_t context = 0;                   // tokens of KV cache; 0: not given
  size_t model_context = 0;             // the most tokens of a sequence
  bool memory_check = true;             // false: memory does not limit the context
};

struct DeviceLayers {
  size_t count = 0;    // of the model's last layers
  std::string advice;  // what to do where they do not fit
};
// How many layers a device gets: the number requested, at most all; otherwise as many as fit with the
// requested context, or with 4,096 tokens.
DeviceLayers choose_device_layers(const PlacedModel& model, const Memory& device,
                                  const PlacementRequest& request);

// Tokens of the KV cache: the number requested; otherwise the model's context, limited to half of the memory
// that the weights leave, but no fewer tokens than a device's layers were chosen for, and at least a page.
size_t choose_context(const std::vector<Place>& places, const PlacementRequest& request);

// What to do where the model does not fit and fewer layers on a device would not help.
inline constexpr const char* kSmallerCacheAdvice = "a smaller --ctx or --kv needs less";

// The error line where a place does not fit with a KV cache of `tokens` tokens; empty when all fit. It says
// how many tokens would.
std::string memory_fault(const std::vector<Place>& places, size_t tokens, unsigned kv_bits,
                         const std::string& advice);

}  // namespace tessera
