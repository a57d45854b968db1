// Attention over pages on the tensor cores. A block has up to 64 queries that share a KV head, 16 for each
// warp, and iterates over the pages of their sequence or of one chunk. Asynchronous copies bring keys and
// values into a ring of slots, each for the key part or the value part of a page. kBits is the precision of
// the cache.
#pragma once

#include "backends/cuda/attention/add_values.h"
#include "backends/cuda/attention/blend.h"
#include "backends/cuda/attention/page_kernels.h"
#include "backends/cuda/device/launch.h"

namespace tessera::cuda {

struct PagesJob {
  AttentionJob attention;
  Global<const AttentionTile> tiles;
  Global<const uint32_t> first_record;  // of split tiles; null: tiles are whole
  uint32_t tile_count = 0;
  uint32_t head_parts = 1;  // blocks into which the queries of a KV head are divided
  uint32_t slots = 2;       // 2, 4 or 6
};

// Heads of more than kWarpElements need two warps: each computes all scores and half of the elements.
constexpr uint32_t element_parts(uint32_t head_dim) { return head_dim > kWarpElements ? 2 : 1; }
constexpr uint32_t slot_bytes(uint32_t bits, uint32_t head_dim) {
  const uint32_t keys = kv::key_bytes(bits, head_dim);
  const uint32_t values = kv::value_bytes(bits, head_dim);
  return keys > values ? keys : values;
}

// The queries of a block and its range of pages.
struct BlockWork {
  AttentionTile tile;
  uint32_t kv_head;
  uint32_t heads;       // query heads of each token
  uint32_t first_head;  // among all query heads
  uint32_t first_page;
  uint32_t end_page;
};

TESSERA_DEVICE BlockWork block_work(const PagesJob& job) {
  const AttentionJob& attention = job.attention;
  const bool split = !job.first_record.null();
  // The last tiles of a prompt have the longest contexts and begin first.
  const AttentionTile tile = job.tiles[split ? block_z() : job.tile_count - 1 - block_x()];
  const uint32_t per_kv_head = attention.query_heads / attention.kv.kv_heads;
  const uint32_t kv_head = block_y() / job.head_parts;
  const uint32_t most = block_queries(attention.kv.head_dim);
  const uint32_t begin = block_y() % job.head_parts * most;
  const uint32_t heads = per_kv_head - begin < most ? per_kv_head - begin : most;
  const uint32_t pages = (tile.position + tile.tokens + kPageTokens - 1) / kPageTokens;
  // Pages that no token of the tile sees are not read.
  const uint32_t first = first_seen_key(tile.position, attention.window) / kPageTokens;
  BlockWork work = {tile, kv_head, heads, kv_head * per_kv_head + begin, first, pages};
  if (split) {
    const uint32_t chunk_page = attention.chunking.first_page(block_x());
    if (chunk_page > first) work.first_page = chunk_page;
    const uint32_t end = attention.chunking.first_page(block_x() + 1);
    work.end_page = end < pages ? end : pages;
  }
  return work;
}

// The copies of a block's pages, alternating key part and value part.
template <uint32_t kBits>
struct PageStream {
  Shared<std::byte> slots;
  uint32_t next_page;
  uint32_t first_id;  // the page whose id lane 0 holds; other lanes hold those of the following pages
  uint32_t ids;
  uint32_t slot = 0;
  bool values = false;

  TESSERA_DEVICE PageStream(const PagesJob& job, const BlockWork& work, Shared<std::byte> at)
      : slots(at), next_page(work.first_page), first_id(work.first_page), ids(lane_id(job, work)) {}

  TESSERA_DEVICE uint32_t lane_id(const PagesJob& job, const BlockWork& work) const {
    const uint32_t page = first_id + lane_index();
    return page < work.end_page ? job.attention.page_ids[work.tile.first_page + page] : 0;
  }

  // Starts the next copy; beyond the last page an empty group.
  TESSERA_DEVICE void start(const PagesJob& job, const BlockWork& work) {
    const KvLayer& kv = job.attention.kv;
    if (next_page < work.end_page) {
      if (next_page - first_id == 32) {
        first_id = next_page;
        ids = lane_id(job, work);
      }
      const Global<std::byte> page = kv.keys(shuffle_from(ids, next_page - first_id), work.kv_head);
      const Global<std::byte> from = values ? page + kv::key_bytes(kBits, kv.head_dim) : page;
      const uint32_t bytes = values ? kv::value_bytes(kBits, kv.head_dim) : kv::key_bytes(kBits, kv.head_dim);
      const Shared<std::byte> to = slots.as<std::byte>(slot * slot_bytes(kBits, kv.head_dim));
      for (uint32_t byte = 16 * thread_index(); byte < bytes; byte += 16 * block_size())
        cp_async_16(to.as<std::byte>(byte).address(), (from + byte).address());
      next_page += values ? 1 : 0;
    }
    cp_async_commit();
    values = !values;
    slot = slot + 1 == job.slots ? 0 : slot + 1;
  }
};

// Waits for the oldest of the slots - 1 copies in flight.
TESSERA_DEVICE void wait_for_oldest(uint32_t slots) {
  if (slots == 6) {
    cp_async_wait<4>();
  } else if (slots == 4) {
    cp_async_wait<2>();
  } else {
    cp_async_wait<0>();
  }
}

// Sets the values of a page's tokens from `tokens` on to zero. They were never written and may be NaN, which
// a weight of zero does not cancel.
template <uint32_t kBits>
TESSERA_DEVICE void clear_values(Shared<std::byte> values, uint32_t head_dim, uint32_t tokens) {
  if constexpr (kBits == 16) {
    const Shared<uint32_t> words = values.as<uint32_t>();
    for (uint32_t word = thread_index(); word < kv::value_code_bytes(16, head_dim) / 4;
         word += block_size()) {
      const uint32_t tile = word / 128 % 2 * 4 + word % 4;
      const uint32_t token = 8 * tile + 2 * (word / 4 % 4);
      if (token >= tokens) words.store(word, 0);
      if (token + 1 == tokens) words.store(word, words[word] & 0xffffu);
    }
  } else {
    const Shared<uint16_t> parameters = values.as<uint16_t>(kv::value_code_bytes(kBits, head_dim));
    for (uint32_t i = thread_index(); i < kv::parameter_kinds(kBits) * kPageTokens; i += block_size()) {
      const uint32_t place = i % kPageTokens;
      if (8 * (place / 2 % 8) + 2 * (place / 16) + place % 2 >= tokens) parameters.store(i, 0);
    }
  }
}

// Destination of a lane's results for a query: the query's head in y, from the lane's first element on.
TESSERA_DEVICE Global<float> lane_output(const PagesJob& job, const BlockWork& work, uint32_t query,
                                         uint32_t first_tile) {
  const size_t head = work.first_head + query % work.heads;
  return job.attention.y.floats(work.tile.first_row + query / work.heads) +
         (head * job.attention.kv.head_dim + 8 * first_tile + 2 * (lane_index() % 4));
}

// What the warp computes of a tile.
struct WarpShare {
  uint32_t first_query;  // index among the block's queries
  uint32_t first_tile;   // first tile of eight elements
  uint32_t tiles;
};

// Stores a chunk's results in the tile's record.
TESSERA_DEVICE void write_record(const PagesJob& job, const BlockWork& work, const WarpTile& tile,
                                 const WarpShare& share, const Running& running) {
  const uint32_t head_dim = job.attention.kv.head_dim;
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    if (lane_index() / 4 + 8 * r >= tile.queries) break;
    const uint32_t query = share.first_query + lane_index() / 4 + 8 * r;
    const size_t index =
        job.first_record[block_z()] + size_t{block_x()} * work.tile.tokens + query / work.heads;
    const Global<float> record =
        job.attention.records + (index * record_floats(job.attention.query_heads, head_dim) +
                                 size_t{work.first_head + query % work.heads} * (head_dim + 4));
    const Global<Floats2> to = (record + (8 * share.first_tile + 2 * (lane_index() % 4))).as<Floats2>();
    TESSERA_UNROLL
    for (uint32_t n = 0; n < kMostTiles; ++n) {
      if (n >= share.tiles) break;
      to.store(4 * n, {running.sums[r][n][0], running.sums[r][n][1]});
    }
    if (lane_index() % 4 == 0 && share.first_tile == 0)
      (record + head_dim).as<Floats2>().store(0, {running.largest[r], running.total[r]});
  }
}

// Blends a chunk into y, which holds the result of the earlier chunks; after the last chunk divides by the
// total.
TESSERA_DEVICE void blend_chunk(const PagesJob& job, const BlockWork& work, const WarpTile& tile,
                                const WarpShare& share, bool is_first, bool is_last, const Running& running,
                                Blended (&so_far)[2]) {
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    BlendFactors factors = {0, 1};
    float inverse = 1;
    const bool empty = running.total[r] == 0;  // no key of the chunk is visible to the query
    if (is_first) {
      so_far[r] = {running.largest[r], running.total[r]};
    } else if (!empty) {
      factors = blend(so_far[r], running.largest[r], running.total[r]);
    }
    if (is_last) inverse = divide_rn(1.0f, so_far[r].total);
    if (lane_index() / 4 + 8 * r >= tile.queries) break;
    const Global<Floats2> y =
        lane_output(job, work, share.first_query + lane_index() / 4 + 8 * r, share.first_tile).as<Floats2>();
    TESSERA_UNROLL
    for (uint32_t n = 0; n < kMostTiles; ++n) {
      if (n >= share.tiles) break;
      Floats2 sum = {running.sums[r][n][0], running.sums[r][n][1]};
      if (!is_first) {
        const Floats2 before = y[4 * n];
        sum = empty ? before : Floats2{blend(before.x, sum.x, factors), blend(before.y, sum.y, factors)};
      }
      y.store(4 * n, {multiply_rn(sum.x, inverse), multiply_rn(sum.y, inverse)});
    }
  }
}

// Adds the totals and constants of the lanes of a quad, and the constant to every element.
template <uint32_t kBits>
TESSERA_DEVICE void finish_chunk(Running& running) {
  TESSERA_UNROLL
  for (uint32_t r = 0; r < 2; ++r) {
    running.total[r] = quad_sum(running.total[r]);
    if constexpr (kBits == 4) {
      const float constant = quad_sum(running.constant[r]);
      TESSERA_UNROLL
      for (uint32_t n = 0; n < kMostTiles; ++n) {
        running.sums[r][n][0] = add_rn(running.sums[r][n][0], constant);
        running.sums[r][n][1] = add_rn(running.sums[r][n][1], constant);
      }
    }
  }
}

template <uint32_t kBits>
TESSERA_KERNEL TESSERA_BLOCK_OF(32 * kMostWarps) void attend_pages(PagesJob job) {
  wait_for_earlier_kernels();
  const AttentionJob& attention = job.attention;
  const uint32_t head_dim = attention.kv.head_dim;
  const BlockWork work = block_work(job);
  if (work.first_page >= work.end_page) return;
  const uint32_t parts = element_parts(head_dim);
  const uint32_t warp = shuffle_from(warp_index(), 0);  // tells the compiler that it is equal in all lanes
  const uint32_t group = warp / parts;
  const Shared<std::byte> all(shared_memory());
  const Shared<std::byte> operands = all.as<std::byte>(group * query_bytes(kBits, head_dim));
  const Shared<std::byte> slots = all.as<std::byte>(block_size() / 32 / parts * query_bytes(kBits, head_dim));
  PageStream<kBits> stream(job, work, slots);
  for (uint32_t i = 0; i + 1 < job.slots; ++i) stream.start(job, work);

  WarpShare share;
  share.first_query = group * kWarpQueries;
  share.first_tile = warp % parts * kMostTiles;
  share.tiles = head_dim / 8 - share.first_tile < kMostTiles ? head_dim / 8 - share.first_tile : kMostTiles;
  WarpTile tile;
  const uint32_t queries = work.heads * work.tile.tokens;
  if (share.first_query < queries) {
    tile.queries = queries - share.first_query < kWarpQueries ? queries - share.first_query : kWarpQueries;
    tile.first_limit = work.tile.position + share.first_query / work.heads;
    tile.last_limit = work.tile.position + (share.first_query + tile.queries - 1) / work.heads;
  }
  // If two warps have the same queries, the first one stores their operands for both.
  load_queries<kBits>(attention, work.tile,
                      {share.first_query, work.heads, work.first_head, share.first_tile == 0}, operands,
                      tile);

  Running running;
  running.reset();
  Blended so_far[2] = {};
  const uint32_t first_chunk = attention.chunking.of_page(work.first_page);
  const float cap = multiply_rn(attention.soft_cap, kLog2E);
  uint32_t chunk = first_chunk;
  uint32_t slot = 0;
  for (uint32_t page = work.first_page; page < work.end_page; ++page) {
    const uint32_t first_key = page * kPageTokens;
    const bool seen = tile.queries > 0 && first_key <= tile.last_limit &&
                      first_key + kPageTokens > first_seen_key(tile.first_limit, attention.window);
    const Shared<std::byte> keys = slots.as<std::byte>(slot * slot_bytes(kBits, head_dim));
    slot = slot + 1 == job.slots ? 0 : slot + 1;
    wait_for_oldest(job.slots);
    block_barrier();  // all copies have landed, and all warps have finished with the slot that is filled next
    stream.start(job, work);
    if (seen) {
      score_page<kBits>(tile, operands, keys, head_dim, running);
      cap_scores(tile, cap, running);
      subtract_distances(tile, attention.slopes, share.first_query, work.first_head, work.heads, first_key,
                         running);
      hide_unseen_keys(tile, first_key, attention.window, running);
      scores_to_weights(tile, running);
    }
    const Shared<std::byte> values = slots.as<std::byte>(slot * slot_bytes(kBits, head_dim));
    slot = slot + 1 == job.slots ? 0 : slot + 1;
    wait_for_oldest(job.slots);
    block_barrier();
    stream.start(job, work);
    const uint32_t written = work.tile.position + work.tile.tokens - first_key;
    if (written < kPageTokens) {
      clear_values<kBits>(values, head_dim, written);
      block_barrier();
    }
    if (seen) add_values<kBits>(tile, values, head_dim, share.first_tile, share.tiles, running);
    if (page + 1 != work.end_page && page + 1 != attention.chunking.first_page(chunk + 1)) continue;
    finish_chunk<kBits>(running);
    if (!job.first_record.null()) {
      write_record(job, work, tile, share, running);
    } else if (tile.queries > 0) {
      const uint32_t last_chunk = attention.chunking.of_page(tile.last_limit / kPageTokens);
      if (chunk <= last_chunk)
        blend_chunk(job, work, tile, share, chunk == first_chunk, chunk == last_chunk, running, so_far);
    }
    running.reset();
    ++chunk;
  }
}

// Queues a launch over whole tiles, or over split ones.
template <uint32_t kBits>
void launch_pages(Queue& queue, const AttentionJob& attention, const AttentionTiles& tiles, bool split) {
  const uint32_t head_dim = attention.kv.head_dim;
  const uint32_t per_kv_head = attention.query_heads / attention.kv.kv_heads;
  const uint32_t most = block_queries(head_dim);
  PagesJob job;
  job.attention = attention;
  job.tiles = split ? tiles.split : tiles.whole;
  if (split) job.first_record = tiles.first_record;
  job.tile_count = split ? tiles.split_count : tiles.whole_count;
  job.head_parts = (per_kv_head + most - 1) / most;
  const uint32_t tokens = split ? tiles.split_tokens : tiles.whole_tokens;
  const uint32_t queries = tokens * (per_kv_head < most ? per_kv_head : most);
  const uint32_t groups = (queries + kWarpQueries - 1) / kWarpQueries;
  // kMostShared: available to a block on every device since compute capability 8.0. More than kEnoughAhead in
  // flight would only leave room for fewer blocks.
  constexpr size_t kMostShared = size_t{99} << 10;
  constexpr size_t kEnoughAhead = size_t{56} << 10;
  const size_t operands = size_t{groups} * query_bytes(kBits, head_dim);
  const size_t slot = slot_bytes(kBits, head_dim);
  if (operands + 4 * slot <= kMostShared) job.slots = 4;
  if (6 * slot <= kEnoughAhead && operands + 6 * slot <= kMostShared) job.slots = 6;
  LaunchShape shape;
  shape.grid_x = split ? tiles.split_chunks : tiles.whole_count;
  shape.grid_y = attention.kv.kv_heads * job.head_parts;
  shape.grid_z = split ? tiles.split_count : 1;
  shape.threads = 32 * groups * element_parts(head_dim);
  shape.shared_bytes = operands + job.slots * slot;
  shape.early = true;
  launch(queue, shape, &attend_pages<kBits>, job);
}

}  // namespace tessera::cuda
