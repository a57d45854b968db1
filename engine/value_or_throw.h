// Backends return a Result; everything above them throws.
#pragma once

#include <stdexcept>
#include <utility>

#include "backends/status.h"

namespace tessera {

// The value of a result, or a std::runtime_error with its line.
template <class Value>
Value value_or_throw(Result<Value> result) {
  if (!result.ok()) throw std::runtime_error(result.error());
  return std::move(result.value());
}

inline void check_status(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error());
}

}  // namespace tessera
