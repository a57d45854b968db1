// The oracle: every op in plain loops with float64 sums, the definition of correct for all other backends.
//
// What an op means, so that others can be compared with it bit for bit where integers are involved:
// - An f32 tensor holds float32. An op reads float32, computes in float64 and rounds once when it writes.
// - A norm with two inputs writes their float32 sum first and normalises what it wrote.
// - A q8 output is the float32 row the op would have written, quantized as quantized_row.h states.
// - A linear op on integer codes sums exactly and then computes, in float32 and in this order,
//   (row scale * activation scale) * float(sum) + bias.
// - Keys and values are rounded as kv_rounding.h states; attention computes in float64 with the rounded ones.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace tessera {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace tessera
