// The whole recipe on a whole model: a checkpoint folder becomes a .tess file layer by layer, and a run that
// was interrupted goes on where its last finished layer ended.
#pragma once

#include <vector>

#include "engine/quantize/quantize_model.h"

namespace tessera::qoq {

// options.recipe and options.products must be there. With a calibration text, finished layers are kept in
// TARGET.calibration until the file is complete; the next run with the same checkpoint, options and text uses
// them and makes the same file, byte for byte. Throws FileError or std::runtime_error.
std::vector<QuantizeSummary> quantize_with_recipe(const QuantizeOptions& options);

}  // namespace tessera::qoq
