// Orders of columns: vectors of u32 in which entry i is the column that comes i-th. Matrices that were
// quantized in another order of columns ("act-order") are stored in it; those that read one input share one
// (tensor_roles.h).
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// Checks that 4 n bytes of little-endian u32 name every column from 0 to n - 1 once. Returns the first fault
// ("entry 7: expected a column below 64, found 99"), or nothing. bytes need no alignment.
std::string column_order_fault(std::span<const std::byte> bytes);

// The names of the matrices whose columns are stored in the order of this name: those of "layers.3.qkv_order"
// are "layers.3.q", "layers.3.k" and "layers.3.v". Empty for a tensor that is no order.
std::vector<std::string> matrices_in_order(std::string_view tensor);

}  // namespace tessera
