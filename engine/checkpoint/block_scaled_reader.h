// Matrices of bytes, each a number of its own, with a scale for every rectangle of them: fp8 and alike.
#pragma once

#include <memory>

#include "engine/checkpoint/packed_reader.h"
#include "engine/checkpoint/tensor_parts.h"

namespace tessera {

struct BlockSize {
  uint64_t rows = 0;
  uint64_t columns = 0;
};

// values: F8_E4M3 or I8 [rows, columns]; scales: floats, one for each block in row-major order, the last ones
// of a row or column of blocks may be cut off. A value is the byte's number times the scale in f32. Both
// tensors have to outlive the reader; their sizes have been checked.
std::unique_ptr<PackedReader> block_scaled_reader(const CheckpointTensor& values,
                                                  const CheckpointTensor& scales, BlockSize block);

}  // namespace tessera
