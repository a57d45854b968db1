// The oracle: every op in plain loops with float64 sums, the definition of correct for all other backends.
//
// What an op means, so that others can be compared with it bit for bit where integers are involved:
// - An f32 tensor holds float32. An op reads float32, computes in float64 and rounds once when it writes.
// - A norm with two inputs writes their float32 sum first and normalises what it wrote.
// - A q8 output is the float32 row the op would have written, quantized as quantized_row.h states.
// - A bf16 output is that row rounded as bf16_row.h states.
// - A linear op on integer codes sums exactly and then computes, in float32 and in this order,
//   (row scale * activation scale) * float(sum) + bias.
// - A linear op on table codes with q8 inputs sums exactly within a group, the products of activations and
//   codes or of activations and 127 * table[code], and computes in float64 from there on; with bf16 inputs it
//   is a float64 sum of the rounded inputs times the weights.
// - Keys and values are rounded as kv_rounding.h states; attention computes in float64 with the rounded ones.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace tessera {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace tessera
