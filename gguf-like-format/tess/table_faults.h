// Whether the tables, scales and zero points of a tensor in a table scheme make sense.
#pragma once

#include <string>

#include "gguf-like-format/stored_tensor.h"

namespace tessera {

// Every scale finite and not negative, every zero point finite, every table entry a bfloat16 value, or a
// multiple of 1/127 up to 1 with int8 activations, and 0 beyond the entries that codes can name. Returns the
// first fault as a line that names its place, or nothing.
std::string find_table_fault(const StoredTensor& tensor, const TableFormat& format);

}  // namespace tessera
