// Divides a batch into the tiles of the attention kernels, each the work of one block per KV head (and per
// chunk, where its context is split).
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
  size_t records = 0;  // capacity of the memory for records

  bool operator==(const AttentionShape&) const = default;
};

// Number of records that contexts of up to `pages` pages and batches of up to `tokens` tokens can use,
// limited to 32 MiB of them.
size_t useful_records(uint32_t query_heads, uint32_t head_dim, size_t pages, size_t tokens);

struct TileLists {
  std::vector<AttentionTile> whole;
  std::vector<AttentionTile> split;
  std::vector<uint32_t> first_record;  // index of each split tile's first record
  uint32_t whole_tokens = 0;           // tokens of the largest whole tile
  uint32_t split_tokens = 0;
  uint32_t split_chunks = 0;  // of the longest split context, rounded up to a power of two
};
// A tile's context is split if it has several chunks, the batch has too few warps to fill a device, and there
// are records left for it. The sequences must cover the batch in order; their page ids are taken to lie one
// after another in one array.
TileLists list_tiles(std::span<const BatchSequence> sequences, const AttentionShape& shape,
                     const Chunking& chunking);

}  // namespace tessera::cuda
