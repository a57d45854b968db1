#include "engine/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "backends/split/split_backend.h"
#include "graph/split_graph.h"

namespace tessera {

namespace {

// Tokens that a conversation of usual length needs. A device rather gets more layers than a longer context.
constexpr size_t kUsefulContext = 4096;

double gib(size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(size_t{1} << 30); }

Place place_of(const PlacedModel& model, const Graph& graph, const KvGeometry& kv, const PlanLimits& limits,
               const Memory& memory) {
  Place place;
  place.name = memory.name;
  place.on_device = memory.on_device;
  place.layers = kv.layers;
  for (const Weight& weight : graph.weights) place.weight_bytes += model.stored_bytes(weight);
  place.activation_bytes = plan_memory(graph, limits).arena_bytes;
  place.page_bytes = memory.backend.kv_page_bytes(kv);
  place.window_pages = kv.window_pages;
  place.available_bytes = memory.available_bytes;
  return place;
}

size_t default_tokens(const Place& place) {
  const size_t fixed = place.weight_bytes + place.activation_bytes;
  const size_t left = place.available_bytes > fixed ? place.available_bytes - fixed : 0;
  const size_t possible = place.pages_in(left);
  const size_t planned = place.on_device ? std::min(possible, kUsefulContext / kKvPageTokens) : 0;
  return std::max({possible / 2, planned, size_t{1}}) * kKvPageTokens;
}

}  // namespace

size_t Place::pages_in(size_t bytes) const {
  const size_t all = page_bytes.full + page_bytes.window;
  if (all == 0) return 0;
  const size_t pages = bytes / all;
  if (page_bytes.full == 0 || pages <= window_pages) return pages;
  return (bytes - window_pages * page_bytes.window) / page_bytes.full;
}

Place plan_place(const PlacedModel& model, const Memory& memory) {
  return place_of(model, model.graph, model.kv, model.limits, memory);
}

std::vector<Place> plan_places(const PlacedModel& model, const Memory& first, const Memory& last,
                               size_t layers) {
  const size_t before = model.kv.layers - layers;
  const std::optional<SplitGraph> parts = split_graph(model.graph, before);
  if (!parts) return {};
  // The first part hands over every row.
  const PlanLimits all_rows{model.limits.max_tokens, model.limits.max_tokens};
  return {place_of(model, parts->first.graph, first_layers(model.kv, before), all_rows, first),
          place_of(model, parts->second.graph, other_layers(model.kv, before), model.limits, last)};
}

size_t layers_that_fit(const PlacedModel& model, const Memory& memory, size_t tokens) {
  if (plan_place(model, memory).fits(tokens)) return model.kv.layers;
  for (size_t layers = model.kv.layers; layers-- > 1;) {
    const std::vector<Place> places = plan_places(model, memory, memory, layers);
    if (!places.empty() && places.back().fits(tokens)) return layers;
  }
  return 0;
}

DeviceLayers choose_device_layers(const PlacedModel& model, const Memory& device,
                                  const PlacementRequest& request) {
  const size_t tokens =
      request.context != 0 ? request.context : std::min(kUsefulContext, request.model_context);
  const size_t fitting = layers_that_fit(model, device, tokens);
  const size_t count = std::min(model.kv.layers, request.device_layers.value_or(fitting));
  return {count, count <= fitting ? kSmallerCacheAdvice : fmt::format("--gpu-layers {} would fit", fitting)};
}

size_t choose_context(const std::vector<Place>& places, const PlacementRequest& request) {
  if (request.context != 0) return request.context;
  size_t tokens = request.model_context;
  for (const Place& place : places) {
    if (request.memory_check && place.available_bytes != 0) tokens = std::min(tokens, default_tokens(place));
  }
  return tokens;
}

std::string memory_fault(const std::vector<Place>& places, size_t tokens, unsigned kv_bits,
                         const std::string& advice) {
  for (const Place& place : places) {
    if (place.fits(tokens)) continue;
    const size_t fixed = place.weight_bytes + place.activation_bytes;
    const size_t left = place.available_bytes > fixed ? place.available_bytes - fixed : 0;
    const size_t pages = place.pages_in(left);
    return fmt::format(
        "not enough memory{}: weights {:.2f} GiB + KV cache {:.2f} GiB ({} tokens at {} bits) + activations "
        "{:.2f} GiB, {:.2f} GiB available; {}",
        places.size() > 1 ? fmt::format(" on {} for {} layers", place.name, place.layers) : "",
        gib(place.weight_bytes), gib(place.kv_bytes(tokens)), tokens, kv_bits, gib(place.activation_bytes),
        gib(place.available_bytes),
        pages == 0 ? advice : fmt::format("--ctx {} would fit, {}", pages * kKvPageTokens, advice));
  }
  return {};
}

}  // namespace tessera
