// Whether a .tess file's tensor table makes sense: where tensors lie, and whether their shapes agree with
// the hyperparameters.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/tess/tess_header.h"

namespace tessera {

// Gives every record its stored size and its offset: the first at header_end rounded up to kTessAlignment,
// the others in order after it. Returns the size of the file. Throws FileError when a scheme does not fit a
// shape or the sum overflows.
uint64_t place_tensors(std::span<TensorRecord> tensors, uint64_t header_end, const std::string& file);

// Checks that the records lie where place_tensors would put them in a file of file_bytes. Throws FileError
// telling misalignment, overlap, gap and end apart.
void check_placement(std::span<const TensorRecord> tensors, uint64_t header_end, uint64_t file_bytes,
                     const std::string& file);

// Checks names (no duplicates) and, for every tensor whose name has a meaning in the format, its shape and
// kind of scheme against the hyperparameters. Throws FileError.
void check_tensor_shapes(std::span<const TensorRecord> tensors, const Hyperparameters& hyperparameters,
                         const std::string& file);

}  // namespace tessera
