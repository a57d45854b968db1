// Cuts a batch into the tiles that blocks of the attention kernels take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backends/cuda/attention/attention.h"
#include "graph/batch.h"

namespace tessera::cuda {

// What the tiles of an attention op depend on.
struct AttentionShape {
  uint32_t query_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  size_t records = 0;  // how many there is room for

  bool operator==(const AttentionShape&) const = default;
};

// Records that pay off for contexts of up to `pages` and runs of up to `tokens`, within a few MiB.
size_t wanted_records(uint32_t query_heads, uint32_t head_dim, size_t pages, size_t tokens);

struct TileLists {
  std::vector<AttentionTile> whole;
  std::vector<AttentionTile> split;
  std::vector<uint32_t> first_record;  // of each split tile
  uint32_t whole_tokens = 0;           // of the largest
  uint32_t split_tokens = 0;
  uint32_t split_chunks = 0;  // of the longest split context, up to the next power of two
};
// Contexts of several chunks are split while the batch alone does not fill a device and records last. The
// sequences cover the batch in order, page ids of each follow those of the one before.
TileLists list_tiles(std::span<const BatchSequence> sequences, const AttentionShape& shape,
                     const Chunking& chunking);

}  // namespace tessera::cuda
