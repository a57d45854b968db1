// Matrices that stay as the checkpoint has them: codes go over into a scheme that holds them, floats into
// panels of their type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/quantize/plan/model_file.h"
#include "engine/quantize/plan/rounding_error.h"
#include "engine/quantize/plan/weight_plan.h"

namespace tessera {

// Whether some tensor of the checkpoint is quantized.
bool has_quantized_tensors(const CheckpointSource& checkpoint);

// Gives every matrix of the plan the scheme that holds what the checkpoint has: its floats, or its codes
// (PlannedWeight::kept), which needs a look at all of its levels. What no scheme holds, and what is
// multiplied on import, will be rounded: to 8 bits in groups of 32 when the checkpoint has more than 4,
// otherwise to 4. Embedding and head too, unless rounded_head says that they become w8a8. threads 0: one per
// core. Throws FileError as the checkpoint does, and for a matrix with too many columns.
void keep_matrices(std::vector<PlannedWeight>& plan, ActivationType activations, bool rounded_head,
                   size_t threads);

// Writes a matrix with kept codes into out and measures it: every row is decoded and compared, in f32, with
// the values that the checkpoint's own formula gives. Throws FileError as the checkpoint does.
ErrorSums encode_kept(const ModelFileOptions& options, const PlannedWeight& weight, std::span<std::byte> out,
                      Progress& progress);

}  // namespace tessera
