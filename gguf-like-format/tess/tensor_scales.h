// Whether the scales inside a quantized tensor make sense.
#pragma once

#include <string>

#include "gguf-like-format/stored_tensor.h"

namespace tessera {

// Checks every scale of a tensor of codes. Schemes with scales per group: group_faults.h. Others: row scales finite and not
// negative, zero only for rows whose codes all mean zero; zero points at most 15; group scales s1 from 1 to
// 16 and group offsets a from 1 to 128; and no code that expands beyond a byte. Returns the first fault as a
// line that names the row, or nothing.
std::string find_scale_fault(const StoredTensor& tensor);

}  // namespace tessera
