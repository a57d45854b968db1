// Attention over pages, in its plain form: a block takes up to 16 queries that share a KV head and walks over
// the pages of their sequence; scores, a running softmax, weighted values. One template for each precision of
// the cache.
#include "backends/cuda/attention/attention.h"
#include "backends/cuda/attention/warp_floats.h"
#include "backends/cuda/elementwise/block_reduce.h"
#include "backends/cuda/launch.h"

namespace tessera::cuda {

namespace {

constexpr uint32_t kWarps = 4;
constexpr uint32_t kThreads = 32 * kWarps;
constexpr uint32_t kQueryParts = kThreads / kPageTokens;  // threads that share a key take every second query
constexpr uint32_t kMinusInfinity = 0xff800000u;

// What the block keeps in shared memory; every array has an entry for each query.
struct Tile {
  Shared<float> queries;       // [head_dim]
  Shared<float> sums;          // [head_dim]: weighted values so far
  Shared<float> weights;       // [64] of the current page
  Shared<float> largest;       // score so far
  Shared<float> total;         // of weights so far
  Shared<float> rescale;       // what the current page multiplies everything before with
  Shared<float> query_factor;  // scale, times the step of the query's codes over 4-bit keys
  Shared<float> query_total;   // 4 bits: scale times the sum of the query
  Shared<int32_t> code_total;  // 4 bits: sum of the query's codes
  Shared<float> weight_step;   // step of the weights' codes; 1 where they are not rounded
  Shared<float> constant;      // 4 bits: what the middles of the values add to every element
  Shared<std::byte> codes;     // 4 bits: [head_dim] signed bytes
};

constexpr size_t tile_bytes(uint32_t head_dim, uint32_t bits) {
  const size_t codes = bits == 4 ? head_dim : 0;
  return kTileQueries * (2 * 4 * size_t{head_dim} + 4 * kPageTokens + 8 * 4 + codes);
}

TESSERA_DEVICE Tile make_tile(uint32_t head_dim) {
  const Shared<std::byte> all(shared_memory());
  size_t at = 0;
  const auto next = [&](size_t bytes) {
    const size_t begin = at;
    at += bytes * kTileQueries;
    return all.as<std::byte>(begin);
  };
  const Shared<std::byte> queries = next(4 * size_t{head_dim});
  const Shared<std::byte> sums = next(4 * size_t{head_dim});
  const Shared<std::byte> weights = next(4 * kPageTokens);
  const Shared<std::byte> small = next(8 * 4);
  const auto array = [&](size_t index) { return small.as<float>(index * 4 * kTileQueries); };
  return {queries.as<float>(),
          sums.as<float>(),
          weights.as<float>(),
          array(0),
          array(1),
          array(2),
          array(3),
          array(4),
          array(5).template as<int32_t>(),
          array(6),
          array(7),
          next(head_dim)};
}

struct Span {
  AttentionTile tile;
  uint32_t heads;       // of this block, for each token
  uint32_t first_head;  // among all query heads
  uint32_t queries;
};

TESSERA_DEVICE Span make_span(const AttentionJob& job) {
  const AttentionTile tile = job.tiles[block_x()];
  const uint32_t per_kv_head = job.query_heads / job.kv.kv_heads;
  const uint32_t begin = block_z() * kTileQueries;
  const uint32_t heads = per_kv_head - begin < kTileQueries ? per_kv_head - begin : kTileQueries;
  return {tile, heads, block_y() * per_kv_head + begin, heads * tile.tokens};
}

// Copies the queries; over 4-bit keys also rounds each to 8 bits: step = max|q| / 127. A warp for each query.
template <uint32_t kBits>
TESSERA_DEVICE void load_queries(const AttentionJob& job, const Span& span, const Tile& tile) {
  const uint32_t head_dim = job.kv.head_dim;
  for (uint32_t q = warp_index(); q < span.queries; q += kWarps) {
    const Global<const float> from = job.qkv.floats(span.tile.first_row + q / span.heads) +
                                     size_t{span.first_head + q % span.heads} * head_dim;
    float largest = 0;
    float total = 0;
    for (uint32_t i = lane_index(); i < head_dim; i += 32) {
      const float x = from[i];
      const float magnitude = bits_float(float_bits(x) & 0x7fffffffu);
      largest = magnitude > largest ? magnitude : largest;
      total = add_rn(total, x);
      tile.queries.store(q * head_dim + i, x);
      tile.sums.store(q * head_dim + i, 0.0f);
    }
    float factor = job.scale;
    if constexpr (kBits == 4) {
      const float step = divide_rn(warp_largest(largest), 127.0f);
      uint32_t code_total = 0;
      for (uint32_t i = lane_index(); i < head_dim; i += 32) {
        const float code = step > 0 ? round_even(divide_rn(from[i], step)) : 0.0f;
        const auto whole = static_cast<int32_t>(code);
        tile.codes.as<int8_t>().store(q * head_dim + i, static_cast<int8_t>(whole));
        code_total += static_cast<uint32_t>(whole);
      }
      code_total = warp_sum(code_total);
      total = warp_sum(total);
      factor = multiply_rn(job.scale, step);
      if (lane_index() == 0) {
        tile.code_total.store(q, static_cast<int32_t>(code_total));
        tile.query_total.store(q, multiply_rn(job.scale, total));
      }
    }
    if (lane_index() == 0) {
      tile.query_factor.store(q, factor);
      tile.largest.store(q, bits_float(kMinusInfinity));
      tile.total.store(q, 0.0f);
      tile.constant.store(q, 0.0f);
    }
  }
}

struct Elements {
  float at[8];
};

// Eight codes of a key row of 8 or 16 bits, as numbers.
template <uint32_t kBits>
TESSERA_DEVICE Elements key_elements(Global<std::byte> row, uint32_t index) {
  Elements x;
  if constexpr (kBits == 16) {
    const Words4 words = row.as<Words4>()[index];
    const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
    for (uint32_t i = 0; i < 8; ++i)
      x.at[i] = half_to_float(static_cast<uint16_t>(pairs[i / 2] >> (16 * (i % 2))));
  } else {
    const Words2 words = row.as<Words2>()[index];
    const uint32_t four[2] = {words.x, words.y};
    for (uint32_t i = 0; i < 8; ++i)
      x.at[i] = static_cast<float>(static_cast<int8_t>(four[i / 4] >> (8 * (i % 4)) & 255u));
  }
  return x;
}

// Scores of one key with every kQueryParts-th query, into weights. Hidden keys get minus infinity.
template <uint32_t kBits>
TESSERA_DEVICE void score_key(const AttentionJob& job, const Span& span, const Tile& tile,
                              Global<std::byte> block, uint32_t first_key, uint32_t keys) {
  constexpr uint32_t kMost = kTileQueries / kQueryParts;
  const uint32_t slot = thread_index() % kPageTokens;
  const uint32_t part = thread_index() / kPageTokens;
  const uint32_t head_dim = job.kv.head_dim;
  float dots[kMost] = {};
  int32_t code_dots[kMost] = {};
  float key_scale = 1.0f;
  float key_middle = 0.0f;
  if (slot < keys) {
    const Global<std::byte> row = job.kv.key(block, slot);
    if constexpr (kBits != 16)
      key_scale = half_to_float(job.kv.parameters(block, KvParameter::key_scale)[slot]);
    if constexpr (kBits == 4) {
      const float minimum = half_to_float(job.kv.parameters(block, KvParameter::key_minimum)[slot]);
      key_middle = add_rn(multiply_rn(8.0f, key_scale), minimum);
    }
    for (uint32_t c = 0; c < head_dim / 8; ++c) {
      if constexpr (kBits == 4) {
        const uint32_t word = row.as<uint32_t>()[c];
        for (uint32_t i = 0; i < kMost; ++i) {
          const uint32_t q = part + kQueryParts * i;
          if (q >= span.queries) break;
          const Words2 codes = tile.codes.as<Words2>(q * head_dim)[c];
          code_dots[i] = dp4a_u8s8(word & 0x0f0f0f0fu, codes.x, code_dots[i]);
          code_dots[i] = dp4a_u8s8(word >> 4 & 0x0f0f0f0fu, codes.y, code_dots[i]);
        }
      } else {
        const Elements key = key_elements<kBits>(row, c);
        for (uint32_t i = 0; i < kMost; ++i) {
          const uint32_t q = part + kQueryParts * i;
          if (q >= span.queries) break;
          const Shared<Floats4> query = tile.queries.as<Floats4>(4 * size_t{q} * head_dim);
          const Floats4 low = query[2 * c];
          const Floats4 high = query[2 * c + 1];
          const float x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
          for (uint32_t j = 0; j < 8; ++j) dots[i] = multiply_add(key.at[j], x[j], dots[i]);
        }
      }
    }
  }
  for (uint32_t i = 0; i < kMost; ++i) {
    const uint32_t q = part + kQueryParts * i;
    if (q >= span.queries) break;
    const bool seen = slot < keys && first_key + slot <= span.tile.position + q / span.heads;
    float score = bits_float(kMinusInfinity);
    if (seen) {
      const float factor = multiply_rn(key_scale, tile.query_factor[q]);
      if constexpr (kBits == 4) {
        const int32_t dot = code_dots[i] - 8 * tile.code_total[q];
        score = add_rn(multiply_rn(factor, static_cast<float>(dot)),
                       multiply_rn(key_middle, tile.query_total[q]));
      } else {
        score = multiply_rn(factor, dots[i]);
      }
    }
    tile.weights.store(q * kPageTokens + slot, score);
  }
}

// Scores become weights relative to the largest score so far; what came before is scaled down. The weights
// carry the values' scales: over 4-bit values as whole numbers of a step, max / 255. A warp for each query,
// two keys a lane.
template <uint32_t kBits>
TESSERA_DEVICE void weigh(const AttentionJob& job, const Span& span, const Tile& tile,
                          Global<std::byte> block, uint32_t keys) {
  for (uint32_t q = warp_index(); q < span.queries; q += kWarps) {
    float weight[2];
    for (uint32_t i = 0; i < 2; ++i) weight[i] = tile.weights[q * kPageTokens + lane_index() + 32 * i];
    const float before = tile.largest[q];
    const float page_largest = warp_largest(weight[0] >= weight[1] ? weight[0] : weight[1]);
    const float largest = before >= page_largest ? before : page_largest;
    for (uint32_t i = 0; i < 2; ++i) weight[i] = exponential(add_rn(weight[i], -largest));
    const float total = warp_sum(add_rn(weight[0], weight[1]));
    const float rescale = exponential(add_rn(before, -largest));
    float step = 1.0f;
    float constant = 0;
    if constexpr (kBits != 16) {
      for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t slot = lane_index() + 32 * i;
        if (slot >= keys) {
          weight[i] = 0;
          continue;
        }
        const float scale = half_to_float(job.kv.parameters(block, KvParameter::value_scale)[slot]);
        if constexpr (kBits == 4) {
          const float minimum = half_to_float(job.kv.parameters(block, KvParameter::value_minimum)[slot]);
          constant = multiply_add(weight[i], add_rn(multiply_rn(8.0f, scale), minimum), constant);
        }
        weight[i] = multiply_rn(weight[i], scale);
      }
    }
    if constexpr (kBits == 4) {
      step = divide_rn(warp_largest(weight[0] >= weight[1] ? weight[0] : weight[1]), 255.0f);
      for (uint32_t i = 0; i < 2; ++i) weight[i] = step > 0 ? round_even(divide_rn(weight[i], step)) : 0.0f;
      constant = warp_sum(constant);
    }
    for (uint32_t i = 0; i < 2; ++i) tile.weights.store(q * kPageTokens + lane_index() + 32 * i, weight[i]);
    warp_barrier();  // all lanes have read what the first one replaces
    if (lane_index() == 0) {
      tile.largest.store(q, largest);
      tile.total.store(q, multiply_add(tile.total[q], rescale, total));
      tile.constant.store(q, multiply_add(tile.constant[q], rescale, constant));
      tile.rescale.store(q, rescale);
      tile.weight_step.store(q, step);
    }
  }
}

// Element d of a value row, without its scale and its middle.
template <uint32_t kBits>
TESSERA_DEVICE float value_element(Global<std::byte> row, uint32_t d) {
  if constexpr (kBits == 16) return half_to_float(row.as<uint16_t>()[d]);
  if constexpr (kBits == 8) return static_cast<float>(row.as<int8_t>()[d]);
  const uint32_t byte = row.as<uint8_t>()[d / 8 * 4 + d % 4];
  return static_cast<float>(static_cast<int32_t>(d % 8 >= 4 ? byte >> 4 : byte & 15u) - 8);
}

// A thread for each element of the head, four queries at a time. Over 4-bit values the products are whole
// numbers far below 2^24, so the sums are exact.
template <uint32_t kBits>
TESSERA_DEVICE void add_values(const AttentionJob& job, const Span& span, const Tile& tile,
                               Global<std::byte> block, uint32_t keys) {
  constexpr uint32_t kTogether = 4;
  const uint32_t head_dim = job.kv.head_dim;
  for (uint32_t d = thread_index(); d < head_dim; d += kThreads) {
    for (uint32_t q = 0; q < span.queries; q += kTogether) {
      float sums[kTogether] = {};
      for (uint32_t slot = 0; slot < keys; ++slot) {
        const float value = value_element<kBits>(job.kv.value(block, slot), d);
        for (uint32_t i = 0; i < kTogether; ++i) {
          if (q + i < span.queries)
            sums[i] = multiply_add(tile.weights[(q + i) * kPageTokens + slot], value, sums[i]);
        }
      }
      for (uint32_t i = 0; i < kTogether; ++i) {
        if (q + i >= span.queries) break;
        const size_t at = (q + i) * head_dim + d;
        const float page = multiply_rn(sums[i], tile.weight_step[q + i]);
        tile.sums.store(at, multiply_add(tile.sums[at], tile.rescale[q + i], page));
      }
    }
  }
}

template <uint32_t kBits>
TESSERA_KERNEL TESSERA_BLOCK_OF(kThreads) void attend_tile(AttentionJob job) {
  const Tile tile = make_tile(job.kv.head_dim);
  const Span span = make_span(job);
  load_queries<kBits>(job, span, tile);
  block_barrier();
  const uint32_t end = span.tile.position + span.tile.tokens;  // keys that anyone here sees
  for (uint32_t first_key = 0; first_key < end; first_key += kPageTokens) {
    const uint32_t page = job.page_ids[span.tile.first_page + first_key / kPageTokens];
    const Global<std::byte> block = job.kv.block(page, block_y());
    const uint32_t keys = end - first_key < kPageTokens ? end - first_key : kPageTokens;
    score_key<kBits>(job, span, tile, block, first_key, keys);
    block_barrier();
    weigh<kBits>(job, span, tile, block, keys);
    block_barrier();
    add_values<kBits>(job, span, tile, block, keys);
    block_barrier();
  }
  const uint32_t head_dim = job.kv.head_dim;
  for (uint32_t q = 0; q < span.queries; ++q) {
    const Global<float> y = job.y.floats(span.tile.first_row + q / span.heads);
    const size_t first = size_t{span.first_head + q % span.heads} * head_dim;
    for (uint32_t d = thread_index(); d < head_dim; d += kThreads)
      y.store(first + d, divide_rn(add_rn(tile.sums[q * head_dim + d], tile.constant[q]), tile.total[q]));
  }
}

}  // namespace

void attend(Queue& queue, const AttentionJob& job, uint32_t tiles) {
  const uint32_t per_kv_head = job.query_heads / job.kv.kv_heads;
  const LaunchShape shape{tiles, job.kv.kv_heads, (per_kv_head + kTileQueries - 1) / kTileQueries, kThreads,
                          tile_bytes(job.kv.head_dim, job.kv.bits)};
  if (job.kv.bits == 16) launch(queue, shape, &attend_tile<16>, job);
  if (job.kv.bits == 8) launch(queue, shape, &attend_tile<8>, job);
  if (job.kv.bits == 4) launch(queue, shape, &attend_tile<4>, job);
}

}  // namespace tessera::cuda
