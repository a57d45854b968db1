// Hugging Face folder in, .tess file out: streams one matrix, or with a recipe one layer, at a time, so that
// memory stays near the largest of them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/plan/model_file.h"
#include "engine/quantize/plan/rounding_error.h"
#include "engine/quantize/recipe/recipe.h"

namespace tessera {

struct QuantizeOptions : ModelFileOptions {
  // Nothing: every weight is rounded as it is.
  std::optional<quantize::Recipe> recipe;
  DenseProducts* products = nullptr;             // needed with a recipe; outlives the call
  std::function<void(const std::string&)> note;  // one line about a choice the recipe made; may be empty
};

// Throws FileError or, where a recipe's arithmetic fails, another std::runtime_error. Nothing is left behind
// on failure but, with a recipe, the folder from which the next run continues.
std::vector<QuantizeSummary> quantize_model(const QuantizeOptions& options);

}  // namespace tessera
