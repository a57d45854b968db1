#include "backends/cuda/attention_tiles.h"

#include <algorithm>
#include <bit>

namespace tessera::cuda {

namespace {

constexpr size_t kMostRecordBytes = size_t{32} << 20;
constexpr size_t kEnoughWarps = 1024;  // eight for each multiprocessor of a large device

uint32_t end_of(const AttentionTile& tile) { return tile.position + tile.tokens; }

}  // namespace

size_t useful_records(uint32_t query_heads, uint32_t head_dim, size_t pages, size_t tokens) {
  const size_t chunks = pages == 0 ? 1 : Chunking().of_page(static_cast<uint32_t>(pages - 1)) + size_t{1};
  return std::min(kMostRecordBytes / (record_floats(query_heads, head_dim) * sizeof(float)), chunks * tokens);
}

TileLists list_tiles(std::span<const BatchSequence> sequences, const AttentionShape& shape,
                     const Chunking& chunking) {
  TileLists lists;
  const uint32_t group = shape.query_heads / shape.kv_heads;
  const size_t most = tile_tokens(shape.head_dim, group);
  std::vector<AttentionTile> tiles;
  uint32_t first_page = 0;
  for (const BatchSequence& sequence : sequences) {
    for (size_t i = 0; i < sequence.token_count; i += most) {
      const size_t tokens = std::min(most, sequence.token_count - i);
      tiles.push_back({static_cast<uint32_t>(sequence.first_row + i), static_cast<uint32_t>(tokens),
                       static_cast<uint32_t>(sequence.position + i), first_page});
    }
    first_page += static_cast<uint32_t>((sequence.position + sequence.token_count - 1) / kKvPageTokens + 1);
  }
  size_t warps = 0;
  for (const AttentionTile& tile : tiles)
    warps += (size_t{tile.tokens} * group + kWarpQueries - 1) / kWarpQueries * shape.kv_heads;
  size_t records = 0;
  for (const AttentionTile& tile : tiles) {
    const uint32_t chunks = chunking.count(end_of(tile));
    const size_t needed = size_t{chunks} * tile.tokens;
    if (warps >= kEnoughWarps || chunks == 1 || needed > shape.records - records) {
      lists.whole.push_back(tile);
      lists.whole_tokens = std::max(lists.whole_tokens, tile.tokens);
      continue;
    }
    lists.split.push_back(tile);
    lists.first_record.push_back(static_cast<uint32_t>(records));
    records += needed;
    lists.split_tokens = std::max(lists.split_tokens, tile.tokens);
    lists.split_chunks = std::max(lists.split_chunks, std::bit_ceil(chunks));
  }
  std::stable_sort(lists.whole.begin(), lists.whole.end(),
                   [](const AttentionTile& a, const AttentionTile& b) { return end_of(a) < end_of(b); });
  return lists;
}

}  // namespace tessera::cuda
