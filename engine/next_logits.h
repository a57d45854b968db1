// The logits that the next token is sampled from.
#pragma once

#include <span>

#include "graph/batch.h"

namespace tessera {

// One row: all logits of the vocabulary, or only the best of them, best first. Both empty: there are none.
struct NextLogits {
  std::span<float> all;
  std::span<const TokenLogit> best;
  bool empty() const { return all.empty() && best.empty(); }
};

}  // namespace tessera
