// Appending to the KV cache and attending over it. Each is queued and returns at once.
#pragma once

#include "backends/cuda/attention/chunks.h"
#include "backends/cuda/device/device.h"
#include "backends/cuda/layout/activation_rows.h"
#include "backends/cuda/layout/kv_layout.h"

namespace tessera::cuda {

// A row of x holds query_heads queries, then kv_heads keys, then kv_heads values, head_dim floats each.
struct AppendJob {
  KvLayer kv;
  Rows x;
  Rows y;  // receives rotated queries; may be x
  uint32_t query_heads = 0;
  Global<const uint32_t> positions;   // [rows]
  Global<const uint32_t> first_page;  // [rows]: where the row's sequence begins in page_ids
  Global<const uint32_t> page_ids;
  Global<const float> cosines;  // [rows, half]
  Global<const float> sines;
  uint32_t half = 0;  // pairs (i, i + half) of queries and keys are rotated; 0: none, and y is not written
};
// Rounds keys and values as the reference backend does and puts them into their pages.
void append(Queue& queue, const AppendJob& job, uint32_t rows);

// Some consecutive tokens of one sequence.
struct alignas(16) AttentionTile {
  uint32_t first_row;
  uint32_t tokens;    // at most tile_tokens()
  uint32_t position;  // of the first one
  uint32_t first_page;
};

inline constexpr uint32_t kWarpQueries = 16;
inline constexpr uint32_t kMostWarps = 4;
inline constexpr uint32_t kWarpElements = 128;  // of a head that one warp sums up; longer heads take two
// Queries that one block takes: all heads of its tokens that share a KV head, as far as they fit.
constexpr uint32_t block_queries(uint32_t head_dim) {
  return kWarpQueries * kMostWarps / (head_dim > kWarpElements ? 2 : 1);
}
constexpr uint32_t tile_tokens(uint32_t head_dim, uint32_t queries_per_kv_head) {
  const uint32_t most = block_queries(head_dim);
  return queries_per_kv_head >= most ? 1 : most / queries_per_kv_head;
}
// Floats that one token's result over one chunk takes.
constexpr size_t record_floats(uint32_t query_heads, uint32_t head_dim) {
  return size_t{query_heads} * (head_dim + 4);
}

// The tiles of a batch. A whole tile is one block for each KV head; a split one is a block for each chunk
// too, whose results are blended afterwards. Both give the same bits.
struct AttentionTiles {
  Global<const AttentionTile> whole;
  uint32_t whole_count = 0;
  uint32_t whole_tokens = 0;  // of the largest whole tile
  Global<const AttentionTile> split;
  Global<const uint32_t> first_record;  // of each split tile, which has tokens * chunks records
  uint32_t split_count = 0;             // at most 65535
  uint32_t split_tokens = 0;            // of the largest split tile
  uint32_t split_chunks = 0;            // at least those of the longest context among split tiles
};

struct AttentionJob {
  KvLayer kv;
  Rows qkv;
  Rows y;  // [query_heads * head_dim]
  uint32_t query_heads = 0;
  float scale = 0;
  Global<const uint32_t> page_ids;
  Global<float> records;  // of split tiles, record_floats() each
  Chunking chunking;
};
// Causal: a token sees all positions up to its own, which append must have stored. Over 4-bit pages queries
// and weights are rounded to 8 bits, as the reference backend has it, over 8-bit pages to 16, and the
// products are exact; over 16-bit pages both are pairs of f16. A token's result does not depend on what else
// is in the batch.
void attend(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles);

}  // namespace tessera::cuda
