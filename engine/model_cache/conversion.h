// How a checkpoint becomes a model file where nobody chose a scheme.
#pragma once

#include <string>

#include "engine/quantize/quantize_model.h"

namespace tessera::model_cache {

// Stands in the names of converted models, behind the hash of their source: what the conversion does, and its
// version. The number is raised whenever the same source would become a file of other bytes.
inline constexpr const char* kConversion = "kept-1";

// Source, scheme and command of that conversion: codes and floats stay as the checkpoint has them. The rest
// as by default.
QuantizeOptions conversion_of(const std::string& checkpoint);

}  // namespace tessera::model_cache
