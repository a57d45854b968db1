// Blocks of GGUF tensors as codes and levels, for the formats whose codes a scheme can take over.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/checkpoint/packed_matrix.h"
#include "gguf-like-format/gguf/gguf_file.h"

namespace tessera {

enum class GgufCodes : uint8_t { with_levels, levels_only };

// Nothing for tensors of one dimension and for the other formats.
std::optional<PackedFormat> packed_format_of(const GgufTensor& tensor);

// Rows first_row … first_row + rows - 1 of a tensor that has a packed format; dimensions before the last one
// count as rows. Without codes for levels_only. Throws FileError for a range outside the tensor.
PackedRows read_codes(const GgufTensor& tensor, uint64_t first_row, uint64_t rows, GgufCodes wanted);

}  // namespace tessera
