#include "engine/finite_logits.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstdint>

namespace tessera {

LogitsNotFinite::LogitsNotFinite(const std::string& model)
    : std::runtime_error(fmt::format(
          "{}: the model's logits are not finite: the file is damaged or does not fit its graph", model)) {}

bool all_finite(std::span<const float> logits) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t faults = 0;
  for (const float logit : logits)
    faults += (std::bit_cast<uint32_t>(logit) & kExponent) == kExponent ? 1 : 0;
  return faults == 0;
}

bool seem_finite(std::span<const float> logits, size_t columns) {
  constexpr size_t kStep = 1024;
  for (size_t row = 0; row + columns <= logits.size(); row += columns)
    for (size_t i = 0; i < columns; i += kStep)
      if (!std::isfinite(logits[row + i])) return false;
  return true;
}

bool have_finite(std::span<const TokenLogit> best, size_t columns) {
  for (size_t row = 0; row < best.size(); row += columns)
    if (!std::isfinite(best[row].logit)) return false;
  return true;
}

}  // namespace tessera
