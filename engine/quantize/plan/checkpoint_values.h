// Reads a checkpoint's values and refuses those that no stored tensor can hold.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/quantize/plan/weight_plan.h"

namespace tessera {

// Elements first … first + out.size() - 1 of the weight's source. Throws FileError, naming the checkpoint
// folder, tensor and element, when one is not finite.
void read_finite(const std::string& folder, const PlannedWeight& weight, uint64_t first,
                 std::span<float> out);

// Throws FileError when one of these values of the weight, from element `first` on, is not finite or is
// beyond what its scheme can hold: f16, bf16 or the f16 scales of a table scheme.
void check_representable(const std::string& folder, const PlannedWeight& weight, uint64_t first,
                         std::span<const float> values);

}  // namespace tessera
