#include "engine/models/sliding_window.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;
namespace limits = header_limits;

constexpr uint64_t kAnyWindow = 1;  // while only the order of layers is looked at

std::vector<bool> read_layer_types(const JsonFields& config) {
  const json& types = config.array("layer_types");
  std::vector<bool> slide;
  for (size_t i = 0; i < types.size(); ++i) {
    slide.push_back(types[i] == "sliding_attention");
    if (!slide.back() && types[i] != "full_attention")
      config.refuse(fmt::format("layer_types[{}]", i), "full_attention or sliding_attention",
                    printable(types[i].dump()));
  }
  return slide;
}

bool has_order(const Hyperparameters& h, const std::vector<bool>& slide) {
  for (size_t layer = 0; layer < slide.size(); ++layer)
    if (h.slides(layer) != slide[layer]) return false;
  return true;
}

// Sets the order of layers that slide to the one listed.
void find_order(const JsonFields& config, const std::vector<bool>& slide, Hyperparameters& h) {
  h.sliding_window = kAnyWindow;
  h.full_attention_every = 0;
  h.first_sliding_layer = static_cast<uint64_t>(std::find(slide.begin(), slide.end(), true) - slide.begin());
  if (has_order(h, slide)) return;
  h.first_sliding_layer = 0;
  for (h.full_attention_every = 2; h.full_attention_every <= slide.size(); ++h.full_attention_every)
    if (has_order(h, slide)) return;
  config.refuse("layer_types",
                "layers that slide from one on, or all but the last of every so many that slide",
                "another order");
}

}  // namespace

void read_sliding_window(const json& document, const JsonFields& config, const HuggingFaceClass& type,
                         uint64_t full_every, Hyperparameters& h) {
  constexpr uint64_t most = std::numeric_limits<int64_t>::max();
  const bool listed = config.find("layer_types") != nullptr;
  Hyperparameters order = h;
  order.sliding_window = 0;
  if (listed) {
    const std::vector<bool> slide = read_layer_types(config);
    if (std::find(slide.begin(), slide.end(), true) != slide.end()) {
      if (slide.size() != h.layers)
        config.refuse("layer_types", fmt::format("a type for each of {} layers", h.layers),
                      fmt::format("{}", slide.size()));
      find_order(config, slide, order);
    }
  } else if (type.has_sliding_window &&
             (!type.window_has_switch || config.boolean_or("use_sliding_window", false))) {
    order.sliding_window = kAnyWindow;
    order.full_attention_every = full_every;
    if (type.window_has_switch)
      order.first_sliding_layer =
          config.optional_integer("max_window_layers", 0, limits::kMostLayers).value_or(0);
  }
  // An absent sliding_window means the type's default; null says that there is none.
  std::optional<uint64_t> window = config.optional_integer("sliding_window", 1, most);
  if (!document.contains("sliding_window") && type.sliding_window != 0) window = type.sliding_window;
  bool any = false;
  for (uint64_t layer = 0; layer < h.layers; ++layer) any = any || order.slides(layer);
  if (!any) return;
  if (!window && listed) config.refuse("sliding_window", "a window for the layers that slide", "none");
  // A window as long as the context hides nothing.
  if (!window || (*window >= h.context && h.sliding_rope_theta == 0)) return;
  h.sliding_window = std::min(*window, limits::kMostContext);
  h.first_sliding_layer = order.first_sliding_layer;
  h.full_attention_every = order.full_attention_every;
}

}  // namespace tessera
