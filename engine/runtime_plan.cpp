#include "engine/runtime_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "backends/split/split_backend.h"
#include "engine/model.h"

namespace tessera {

namespace {

BackendOptions backend_options(const SessionOptions& options) {
  return {options.isa, options.threads, options.numa};
}

// Conversations can be taken back by so many tokens, and go on from there, where a window's pages are used
// again.
constexpr size_t kWindowHistory = 512;

// Pages that a sequence needs in a layer with a window: what the first token of a batch sees, the batch
// itself, and those before and behind that are used in part.
size_t window_ring(const Model& model, const SessionOptions& options) {
  const size_t tokens = std::max<size_t>(options.batch, kWindowHistory);
  return (static_cast<size_t>(model.hyperparameters().sliding_window) + tokens) / kKvPageTokens + 2;
}

KvGeometry kv_geometry(const Model& model, const SessionOptions& options) {
  const Hyperparameters& hp = model.hyperparameters();
  const unsigned bits =
      options.kv_bits != 0 ? options.kv_bits : static_cast<unsigned>(model.header().quantization.kv_bits);
  if (bits != 16 && bits != 8 && bits != 4)
    throw std::runtime_error(fmt::format("KV precision {}: expected 16, 8 or 4", bits));
  KvGeometry kv{hp.layers, hp.kv_heads, hp.head_dim, bits, options.kv_first_layers};
  if (hp.sliding_window == 0) return kv;
  for (size_t layer = 0; layer < hp.layers; ++layer) kv.slides.push_back(hp.slides(layer));
  kv.window_pages = std::max<size_t>(options.sequences, 1) * window_ring(model, options);
  return kv;
}

size_t host_bytes(const Model& model) {
  const size_t bytes = available_host_memory();
  // Weights that are in this memory already are no longer among what is available.
  return bytes != 0 && model.file().resident() ? bytes + model.weight_bytes() : bytes;
}

// Chooses which backend gets which layers: sets the plan's places, and its backend where another one gets
// some of them. Returns the advice for a model that does not fit so.
std::string place_layers(RuntimePlan& plan, const Model& model, const PlacedModel& placed,
                         const PlacementRequest& request, const SessionOptions& options) {
  const std::optional<size_t> device_bytes = plan.backend->available_memory();
  std::vector<Place>& places = plan.memory.places;
  if (!device_bytes) {
    places = {plan_place(placed, {options.backend, *plan.backend, host_bytes(model)})};
    return kSmallerCacheAdvice;
  }
  // A memory of 0 bytes would mean that its size is unknown.
  const Memory device{options.backend, *plan.backend, std::max<size_t>(*device_bytes, 1), true};
  const DeviceLayers chosen = choose_device_layers(placed, device, request);
  if (chosen.count == placed.kv.layers) {
    places = {plan_place(placed, device)};
    return chosen.advice;
  }
  std::unique_ptr<Backend> host = make_backend(kHostBackend, backend_options(options));
  const Memory rest{kHostBackend, *host, host_bytes(model)};
  if (chosen.count == 0) {
    places = {plan_place(placed, rest)};
    plan.backend = std::move(host);
    return chosen.advice;
  }
  places = plan_places(placed, rest, device, chosen.count);
  if (places.empty())
    throw std::runtime_error(fmt::format("--gpu-layers {}: the model cannot be split there", chosen.count));
  plan.backend =
      make_split_backend(std::move(host), std::move(plan.backend), placed.kv.layers - chosen.count);
  return chosen.advice;
}

}  // namespace

RuntimePlan plan_runtime(const Model& model, const SessionOptions& options) {
  RuntimePlan plan;
  plan.backend = make_backend(options.backend, backend_options(options));
  plan.kv = kv_geometry(model, options);
  plan.window_ring = plan.kv.any_slides() ? window_ring(model, options) : 0;
  plan.limits = {std::max<size_t>(options.batch, 1), std::max<size_t>(options.max_outputs, 1)};
  const PlacedModel placed{model.graph(), [&](const Weight& weight) { return model.stored_bytes(weight); },
                           plan.kv, plan.limits};
  const PlacementRequest request{options.gpu_layers, options.context,
                                 static_cast<size_t>(model.hyperparameters().context), options.memory_check};
  const std::string advice = place_layers(plan, model, placed, request, options);

  MemoryFigures& memory = plan.memory;
  memory.kv_bits = plan.kv.bits;
  memory.context = choose_context(memory.places, request);
  plan.kv.window_pages = std::min(plan.kv.window_pages, (memory.context + kKvPageTokens - 1) / kKvPageTokens);
  for (const Place& place : memory.places) {
    memory.weight_bytes += place.weight_bytes;
    memory.activation_bytes += place.activation_bytes;
    memory.available_bytes += place.available_bytes;
    memory.kv_bytes += place.kv_bytes(memory.context);
  }
  const std::string fault = memory_fault(memory.places, memory.context, memory.kv_bits, advice);
  if (options.memory_check && !fault.empty())
    throw std::runtime_error(fault + "; where that is wrong, --memory-check off goes on");
  return plan;
}

}  // namespace tessera
