// The whole recipe on a whole model: a checkpoint folder becomes a .tess file layer by layer, and a run that
// was interrupted goes on where its last finished layer ended.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/plan/model_file.h"
#include "engine/quantize/plan/rounding_error.h"
#include "engine/quantize/recipe/recipe.h"

namespace tessera::quantize {

// note, which may be empty, is told of every choice in one line. With a calibration text, finished layers are
// kept in TARGET.calibration until the file is complete; the next run with the same checkpoint, options and
// text uses them and makes the same file, byte for byte. Throws FileError or std::runtime_error.
std::vector<QuantizeSummary> quantize_with_recipe(const ModelFileOptions& options, const Recipe& recipe,
                                                  DenseProducts& products,
                                                  const std::function<void(const std::string&)>& note);

}  // namespace tessera::quantize
