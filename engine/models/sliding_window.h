// Which layers of a config.json attend to a window of positions only.
#pragma once

#include <cstdint>

#include "engine/models/families.h"

namespace tessera {

// Sets the fields of sliding windows; all of them 0 where every layer sees the whole context. full_every:
// that the last of so many layers in turn sees everything where the config lists no layer types; 0: none
// does. Throws FileError naming the field, also for an order of layers that hyperparameters cannot express.
void read_sliding_window(const nlohmann::json& document, const JsonFields& config,
                         const HuggingFaceClass& type, uint64_t full_every, Hyperparameters& h);

}  // namespace tessera
