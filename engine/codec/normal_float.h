// NormalFloat tables: values that split a normal distribution into codes that are used about equally often.
#pragma once

#include "engine/codec/table_levels.h"
#include "gguf-like-format/scheme.h"

namespace tessera::lut {

// The table of 2^bits entries from -1 to 1 with an exact 0, rounded to what the format stores. With d = (1/32
// + 1/30) / 2 and b bits the 2^(b-1) entries from -1 to 0 are the quantiles of the standard normal
// distribution at linspace(d, 1/2, 2^(b-1)), and the others those at linspace(1/2, 1 - d, 2^(b-1) + 1)
// without the first, all over the largest (Dettmers et al., QLoRA, 2023, for 4 bits). Only for a format
// without zero points.
ValueTable normal_float(const TableFormat& format);

}  // namespace tessera::lut
