// Brings a model from a hub into the cache that huggingface_hub shares, or finds it there.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/hub/http.h"
#include "engine/hub/hub_client.h"
#include "engine/hub/hub_settings.h"
#include "engine/hub/model_name.h"

namespace tessera::hub {

enum class Ask {
  always,        // the hub says what is current; without a connection what is in the cache has to do
  when_missing,  // only when the cache does not hold what is asked for
};

// The path of a GGUF file (of a split model, its first part) or of a checkpoint folder, inside the cache.
// connect is called when the hub is to be asked. Throws HubError with one line that says what to do.
std::string pull_model(const ModelName& name, const HubSettings& settings, Ask ask, const HubEvents& events,
                       const std::function<std::unique_ptr<Http>()>& connect);

}  // namespace tessera::hub
