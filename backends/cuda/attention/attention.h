// Appending to the KV cache and attending over it. Each is queued and returns at once.
#pragma once

#include "backends/cuda/attention/kv_layout.h"
#include "backends/cuda/device.h"
#include "backends/cuda/rows.h"

namespace tessera::cuda {

// A row of qkv holds query_heads queries, then kv_heads keys, then kv_heads values, head_dim floats each.
struct KvStoreJob {
  KvLayer kv;
  Rows qkv;
  uint32_t query_heads = 0;
  Global<const uint32_t> positions;   // [rows]
  Global<const uint32_t> first_page;  // [rows]: where the row's sequence begins in page_ids
  Global<const uint32_t> page_ids;
};
// Rounds keys and values as the reference backend does and puts them into their pages.
void kv_store(Queue& queue, const KvStoreJob& job, uint32_t rows);

// Some consecutive tokens of one sequence.
struct alignas(16) AttentionTile {
  uint32_t first_row;
  uint32_t tokens;    // at most tile_tokens()
  uint32_t position;  // of the first one
  uint32_t first_page;
};
// Queries that one block takes: all heads of its tokens that share a KV head.
inline constexpr uint32_t kTileQueries = 16;
constexpr uint32_t tile_tokens(uint32_t queries_per_kv_head) {
  return queries_per_kv_head >= kTileQueries ? 1 : kTileQueries / queries_per_kv_head;
}

struct AttentionJob {
  KvLayer kv;
  Rows qkv;
  Rows y;  // [query_heads * head_dim]
  uint32_t query_heads = 0;
  float scale = 0;
  Global<const AttentionTile> tiles;
  Global<const uint32_t> page_ids;
};
// Causal: a token sees all positions up to its own, which kv_store must have stored. Over 4-bit pages queries
// and weights are rounded to 8 bits, as the reference backend has it, and the products are exact. A token's
// result does not depend on what else is in the batch.
void attend(Queue& queue, const AttentionJob& job, uint32_t tiles);

}  // namespace tessera::cuda
