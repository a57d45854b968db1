// Attention over a batch: launches the kernels for its tiles, then, for split contexts, one that blends the
// records of each token's chunks, with a block for each head of a token and a thread for each two elements.
#include "backends/cuda/attention/blend.h"
#include "backends/cuda/attention/page_kernels.h"
#include "backends/cuda/attention/warp_tile.h"
#include "backends/cuda/device/launch.h"

namespace tessera::cuda {

namespace {

struct MergeJob {
  AttentionJob attention;
  AttentionTiles tiles;
};

constexpr uint32_t kThreads = kLongestHead / 2;
constexpr uint32_t kRecordsAtOnce = 8;  // records that are loaded at once

TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void merge_token(MergeJob job) {
  wait_for_earlier_kernels();
  const AttentionTile tile = job.tiles.split[block_z()];
  if (block_x() >= tile.tokens) return;
  const uint32_t head_dim = job.attention.kv.head_dim;
  const uint32_t element = 2 * thread_index();
  if (element >= head_dim) return;
  const size_t stride = record_floats(job.attention.query_heads, head_dim);
  const Global<const float> first =
      job.attention.records +
      ((job.tiles.first_record[block_z()] + block_x()) * stride + size_t{block_y()} * (head_dim + 4));
  const uint32_t chunks = job.attention.chunking.count(tile.position + tile.tokens);
  const uint32_t first_chunk =
      job.attention.chunking.of_page(first_seen_key(tile.position, job.attention.window) / kPageTokens);
  Blended all = {kNoScore, 0};
  Floats2 sum = {0, 0};
  for (uint32_t begin = first_chunk; begin < chunks; begin += kRecordsAtOnce) {
    Floats2 part[kRecordsAtOnce];
    Floats2 facts[kRecordsAtOnce];
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kRecordsAtOnce; ++i) {
      const uint32_t chunk = begin + i < chunks ? begin + i : begin;
      const Global<const float> record = first + size_t{chunk} * tile.tokens * stride;
      part[i] = (record + element).as<const Floats2>()[0];
      facts[i] = (record + head_dim).as<const Floats2>()[0];
    }
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kRecordsAtOnce; ++i) {
      if (begin + i >= chunks) break;
      if (begin + i == first_chunk) {
        all = {facts[0].x, facts[0].y};
        sum = part[0];
        continue;
      }
      if (facts[i].y == 0) continue;  // no key of the chunk is visible to the token
      const BlendFactors factors = blend(all, facts[i].x, facts[i].y);
      sum = {blend(sum.x, part[i].x, factors), blend(sum.y, part[i].y, factors)};
    }
  }
  const Global<float> y = job.attention.y.floats(tile.first_row + block_x()) + size_t{block_y()} * head_dim;
  const float inverse = divide_rn(1.0f, all.total);
  (y + element).as<Floats2>().store(0, {multiply_rn(sum.x, inverse), multiply_rn(sum.y, inverse)});
}

}  // namespace

void attend(Queue& queue, const AttentionJob& job, const AttentionTiles& tiles) {
  const auto walk = job.kv.bits == 4 ? &attend_kv4 : (job.kv.bits == 8 ? &attend_kv8 : &attend_kv16);
  if (tiles.whole_count > 0) walk(queue, job, tiles, false);
  if (tiles.split_count == 0) return;
  walk(queue, job, tiles, true);
  launch(queue, {tiles.split_tokens, job.query_heads, tiles.split_count, kThreads, 0, true}, &merge_token,
         MergeJob{job, tiles});
}

}  // namespace tessera::cuda
