// Whether the tables and the levels of groups of a tensor make sense.
#pragma once

#include <string>

#include "gguf-like-format/stored_tensor.h"

namespace tessera {

// Of a matrix whose scheme has scales per group: every scale, zero point and minimum finite, every table
// entry a bfloat16 value, or a multiple of 1/127 up to 1 with int8 activations, and 0 beyond the entries that
// codes can name. Returns the first fault as a line that names its place, or nothing.
std::string find_group_fault(const StoredTensor& tensor);

}  // namespace tessera
