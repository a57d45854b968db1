// How a checkpoint becomes a model file where nobody chose a scheme.
#pragma once

#include <string>

#include "engine/quantize/quantize_model.h"

namespace tessera::model_cache {

// Stands in the names of converted models, behind the hash of their source: what the conversion does, and its
// version. The number is raised whenever the same source would become a file of other bytes.
inline constexpr const char* kConversion = "keep-1";

// Source, scheme and command of that conversion; the rest as by default. Throws FileError for what cannot be
// imported.
QuantizeOptions conversion_of(const std::string& checkpoint);

}  // namespace tessera::model_cache
