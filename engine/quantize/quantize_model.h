// Hugging Face folder in, .tess file out: streams one matrix at a time, so that memory stays near the largest
// matrix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gguf-like-format/scheme.h"

namespace tessera {

struct QuantizeOptions {
  std::string source;  // checkpoint folder
  std::string target;  // .tess path
  Scheme scheme = Scheme::w4a8_g128;
  bool keep_head = false;  // head and embedding stay in the checkpoint's precision instead of w8a8
  unsigned kv_bits = 8;    // recommendation stored in the file
  size_t threads = 0;      // 0: all cores
  std::string command;     // stored in the file
  std::function<void(uint64_t done, uint64_t total)> progress;  // weights encoded so far; may be empty
};

// One line of the summary table: all tensors of one kind ("q", "down", "embedding", …).
struct QuantizeSummary {
  std::string kind;
  std::string scheme;
  size_t tensors = 0;
  uint64_t weights = 0;
  uint64_t bytes = 0;
  double relative_error = 0;  // sqrt(sum (w - decoded)^2 / sum w^2)
};

// Throws FileError; nothing is left behind on failure.
std::vector<QuantizeSummary> quantize_model(const QuantizeOptions& options);

}  // namespace tessera
