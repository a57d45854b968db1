// Appending to the KV cache and attention over it. Both functions queue their launches and return at once.
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
  Global<const uint32_t> first_page;  // [rows]: index in page_ids of the first page of the row's sequence
  Global<const uint32_t> page_ids;
  Global<const float> cosines;  // [rows, half]
  Global<const float> sines;
  uint32_t half = 0;  // pairs (i, i + half) of queries and keys are rotated; 0: no rotation, y is not written
};
// Rotates queries and keys, rounds keys and values as the reference backend does, and stores them in their
// pages.
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
// Elements of a head that one warp sums; longer heads need two warps.
inline constexpr uint32_t kWarpElements = 128;
// Largest number of queries of one block, which has all heads of its tokens that share a KV head, as far as
// they fit.
constexpr uint32_t block_queries(uint32_t head_dim) {
  return kWarpQueries * kMostWarps / (head_dim > kWarpElements ? 2 : 1);
}
constexpr uint32_t tile_tokens(uint32_t head_dim, uint32_t queries_per_kv_head) {
  const uint32_t most = block_queries(head_dim);
  return queries_per_kv_head >= most ? 1 : most / queries_per_kv_head;
}
// Floats of a record: one token's result over one chunk.
constexpr size_t record_floats(uint32_t query_heads, uint32_t head_dim) {
  return size_t{query_heads} * (head_dim + 4);
}

// The tiles of a batch. A whole tile is one block for each KV head. A split tile is one block for each KV
// head and chunk; a second kernel blends their results. Both give the same bits.
struct AttentionTiles {
  Global<const AttentionTile> whole;
  uint32_t whole_count = 0;
  uint32_t whole_tokens = 0;  // of the largest whole tile
  Global<const AttentionTile> split;
  Global<const uint32_t> first_record;  // of each split tile, which has tokens * chunks of them
  uint32_t split_count = 0;             // at most 65535
  uint32_t split_tokens = 0;            // of the largest split tile
  uint32_t split_chunks = 0;            // at least the chunks of the longest context among split tiles
};

struct AttentionJob {
  KvLayer kv;
  Rows qkv;
  Rows y;  // [query_heads * head_dim]
  uint32_t query_heads = 0;
  float scale = 0;
  uint32_t window = 0;                // positions that a token sees, itself among them; 0: all
  float soft_cap = 0;                 // 0: none
  Global<const float> slopes;         // [query_heads], of ALiBi; null: none
  Global<const float> query_factors;  // by position; null: 1
  Global<const uint32_t> page_ids;
  Global<float> records;  // of split tiles, record_floats() each
  Chunking chunking;
};
// Causal attention: a token sees all positions of its window up to its own, which append must have stored.
// Over 4-bit pages queries and weights are rounded to 8 bits, as in the reference backend, over 8-bit pages
// to 16 bits, and the products are exact; over 16-bit pages each is the sum of two f16. A token's result does
// not depend on the rest of the batch.
void attend(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles);

}  // namespace tessera::cuda
