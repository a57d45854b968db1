// Checkpoint in, .tess file out: streams one matrix, or with a recipe one layer, at a time, so that
// memory stays near the largest of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/qoq/recipe.h"
#include "engine/quantize/rounding_error.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

struct QuantizeOptions {
  std::string source;  // checkpoint: a Hugging Face folder or a GGUF file
  std::string target;  // .tess path
  Scheme scheme = Scheme::w4a8_g128;
  bool keep_head = false;  // head and embedding stay in the checkpoint's precision instead of w8a8
  unsigned kv_bits = 8;    // recommendation stored in the file
  size_t threads = 0;      // 0: all cores
  std::string command;     // stored in the file
  // Work done so far out of all of it, in weights; begins above zero when a run is resumed. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;

  // Nothing: every weight is rounded as it is.
  std::optional<qoq::Recipe> recipe;
  DenseProducts* products = nullptr;             // needed with a recipe; outlives the call
  std::function<void(const std::string&)> note;  // one line about a choice the recipe made; may be empty
};

// Throws FileError or, where a recipe's arithmetic fails, another std::runtime_error. Nothing is left behind
// on failure but, with a recipe, the folder from which the next run continues.
std::vector<QuantizeSummary> quantize_model(const QuantizeOptions& options);

}  // namespace tessera
