// Runs models over the same windows, chunk by chunk, and compares their logits with a reference's while both
// are in memory: one pass per model, and no logits are kept.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/measure/logit_comparison.h"
#include "engine/measure/perplexity_windows.h"
#include "engine/model.h"
#include "engine/session.h"

namespace tessera {

// A model and how it is to be run; context, batch and max_outputs of the options are set by measuring.
struct Contender {
  const Model* model = nullptr;
  SessionOptions options;
  std::string name;  // in errors and reports of progress
};

struct SideBySide {
  std::optional<ModelQuality> reference;
  std::vector<ModelQuality> models;  // in the order of the contenders
  std::vector<unsigned> kv_bits;     // that each contender ran with
  unsigned reference_kv_bits = 0;
  std::string backend;  // of the first contender, "cpu avx512-vnni, 2 threads"
};

// Called while measuring; each may be empty.
struct SideBySideEvents {
  std::function<void(const MemoryFigures& figures)> memory;    // of a single model without a reference
  std::function<void(const std::string& line)> shared_memory;  // of all models of the first pass
  std::function<void(const std::string& line)> passes;         // why the text is read more than once
  // Tokens that were run, out of those of all models together; the first model's nats so far.
  std::function<void(size_t done, size_t total, const SampleMean& nats)> progress;
};

inline constexpr size_t kMostAtOnce = 64;  // contenders in memory; each has its own threads

// All contenders have the reference's vocabulary. Where memory does not hold all sessions at once, or they
// are more than most_at_once, the text is read several times, each time by the reference and some of them,
// and events.passes says so. Throws std::runtime_error with the numbers when not even one fits beside the
// reference, and for logits that are not finite. window is the most tokens that a window of the plan has.
SideBySide measure_side_by_side(const WindowPlan& plan, size_t window,
                                const std::optional<Contender>& reference,
                                const std::vector<Contender>& contenders, const SideBySideEvents& events = {},
                                size_t most_at_once = kMostAtOnce);

}  // namespace tessera
