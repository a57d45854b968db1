// Models named by a hub: what "tessera pull" fetches and -hf runs.
#pragma once

#include <optional>
#include <string>

#include "commands/command_line/arguments.h"
#include "engine/hub/pull.h"

namespace tessera {

// The path, in the hub's cache, of the model that text names: "owner/name[:choice][@revision]". file, where
// it is given, is the choice. Shows progress on stderr. Throws UsageError or HubError.
std::string pull_from_hub(const std::string& text, const std::optional<std::string>& file, hub::Ask ask);

// The path of -m, or of what -hf and --hf-file name, which is fetched when it is not in the cache; nothing
// where neither is given. Throws UsageError or HubError.
std::optional<std::string> chosen_model(const Arguments& arguments);

}  // namespace tessera
