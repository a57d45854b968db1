// Logits that are NaN or infinite: the file is damaged, or its weights overflow.
#pragma once

#include <span>
#include <stdexcept>
#include <string>

#include "graph/batch.h"

namespace tessera {

// One line that names the model.
class LogitsNotFinite : public std::runtime_error {
 public:
  explicit LogitsNotFinite(const std::string& model);
};

bool all_finite(std::span<const float> logits);

// A look at some logits of every row of `columns`, at no cost that shows: a state that is not finite makes
// all logits of its row so.
bool seem_finite(std::span<const float> logits, size_t columns);
// The best finite logits, [rows, columns]: whether every row has one.
bool have_finite(std::span<const TokenLogit> best, size_t columns);

}  // namespace tessera
