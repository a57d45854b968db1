// What the metadata of a GGUF file says about a model: hyperparameters, chat settings, generation defaults.
#pragma once

#include "engine/models/families.h"
#include "gguf-like-format/gguf/gguf_file.h"
#include "gguf-like-format/model_header.h"

namespace tessera {

// Divisors of the rotary frequencies, where they are not as plain as the metadata says: they are part of the
// hyperparameters and no weight.
inline constexpr const char* kRopeDivisors = "rope_freqs.weight";

// Name, hyperparameters, template, stop tokens that have an id and sampling defaults; tokenizer and
// quantization are left empty. Throws FileError naming file and key for anything missing, of the wrong type,
// out of range or not supported.
ModelHeader read_gguf_header(const GgufFile& file);

}  // namespace tessera
