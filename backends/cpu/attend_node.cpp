// Attention, second half: softmax(q K^T) V over paged KV.
//
// Keys are taken in chunks of 1,024. Within a chunk all scores of a few queries are computed first, then an
// exact softmax per row, then the weighted values (SlimAttention: scores never leave the second-level cache).
// Chunks are merged in order by their largest score (online softmax). Weights are powers of two relative to a
// whole number, so that merging scales by exact factors. A query's result depends only on its own position
// and keys: not on the tokens that share its batch, not on threads, not on how chunks are dealt out. Where a
// layer has a window, pages before it are not read: chunks stay where they are, and what a query does not see
// has no weight.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "backends/cpu/node.h"
#include "backends/cpu/split_attention.h"
#include "backends/cpu/task_ranges.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

namespace {

constexpr size_t kChunkPages = 16;
constexpr size_t kChunkKeys = kChunkPages * kKvPageTokens;
// Queries that share a pass over the keys: a multiple of the kernels' tiles, and scores that fit a 1 MiB
// cache.
constexpr size_t kTileQueries = 48;
constexpr size_t kPagesAhead = 3;  // distance of prefetches
constexpr float kLogTwoOfE = 1.44269504f;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Result of some queries over one chunk, or over several: weights are relative to 2^reference.
struct Partial {
  float* output;     // [queries][padded head size], not yet divided by sum
  float* sum;        // [queries]
  float* reference;  // [queries]; minus infinity: no keys seen
};

// A few neighbouring tokens of one sequence and all query heads of one KV head.
struct Tile {
  const BatchSequence* sequence;
  std::span<const uint32_t> pages;  // of this layer
  PagedKv::HeadBlocks blocks;
  size_t head;  // KV head
  size_t first_token;
  size_t tokens;
  size_t first_key;  // seen by the first token
  size_t first_chunk() const { return first_key / kChunkKeys; }
  size_t keys() const { return sequence->position + first_token + tokens; }  // seen by the last token
  size_t chunks() const { return (keys() + kChunkKeys - 1) / kChunkKeys; }
  const uint8_t* keys_of(size_t page) const { return blocks.keys(pages[page]); }
  const uint8_t* values_of(size_t page) const { return blocks.values(pages[page]); }
};

// Prefetches bytes into the second-level cache.
void prefetch(const uint8_t* begin, const uint8_t* end) {
  for (; begin < end; begin += tile::kLineBytes) __builtin_prefetch(begin, 0, 2);
}

// 2^n for a whole number n of at most 0, minus infinity included; 0 where that is no normal number.
float power_of_two(float n) {
  if (!(n >= -126.0f)) return 0.0f;
  return std::bit_cast<float>(static_cast<uint32_t>(static_cast<int>(n) + 127) << 23);
}

class AttendNode : public Node {
 public:
  AttendNode(const NodeContext& context, const Op& op, const Attention& attention)
      : kernels_(*context.kernels),
        qkv_(context.views[op.inputs[0]]),
        out_(context.views[op.outputs[0]]),
        shape_(attention),
        kv_(*context.kv),
        layout_(kv_.layout(attention.layer)),
        group_(attention.query_heads / attention.kv_heads),
        tile_tokens_(std::max<size_t>(1, kTileQueries / group_)),
        threads_(context.threads),
        ranges_(context.threads),
        padded_(tile::round_up(attention.head_dim, tile::kPanelRows)),
        shared_(*context.split_attention) {
    shared_.reserve_at_least(split_units(), split_chunks(), group_ * (padded_ + 2));
  }

  void prepare(const RunState& run) override {
    Node::prepare(run);
    // With few queries, as in generation, the chunks of a long context are dealt to different threads.
    size_t units = 0;
    bool single = true;
    bool several_chunks = false;
    for (const BatchSequence& sequence : run.batch->sequences) {
      units += tiles_of(sequence) * shape_.kv_heads;
      single = single && sequence.token_count == 1;
      several_chunks = several_chunks || chunks_of(sequence) > 1;
    }
    split_ = threads_ > 1 && single && several_chunks && units <= split_units();
    if (!split_) return;
    size_t unit = 0;
    size_t tasks = 0;
    for (const BatchSequence& sequence : run.batch->sequences) {
      const size_t chunks = chunks_of(sequence);
      tasks += chunks * shape_.kv_heads;
      for (size_t head = 0; head < shape_.kv_heads; ++head) shared_.begin_unit(unit++, chunks);
    }
    ranges_.deal(tasks);
  }

  void execute(const RunState& run, size_t thread, std::span<std::byte> scratch) override {
    const Scratch memory = carve(scratch.data());
    if (split_) {
      attend_chunks(run, thread, memory);
    } else {
      attend_tiles(run, memory);
    }
  }

  size_t scratch_bytes() const override {
    std::byte anchor{};  // only distances count
    return static_cast<size_t>(carve(&anchor).end - &anchor);
  }

 private:
  // A page's weights as whole numbers.
  struct PageWeights {
    uint8_t* digits;  // [queries][kWeightBytes]
    float* steps;     // [queries]
  };
  struct Scratch {
    float* scores;           // [queries][chunk keys]
    uint8_t* digits;         // [queries] of the query; for 16 bits the scaled query itself
    QueryTerms* queries;     // [queries]
    PageWeights weights[2];  // of a page and of the one after it
    float* constants;        // [queries][kConstantLanes]
    Partial chunk;
    Partial total;
    std::byte* end;
  };

  // Every task is a tile with all of its keys.
  void attend_tiles(const RunState& run, const Scratch& memory) {
    size_t task = next_task();
    size_t before = 0;
    for (const BatchSequence& sequence : run.batch->sequences) {
      const size_t tiles = tiles_of(sequence);
      for (; task < before + tiles * shape_.kv_heads; task = next_task()) {
        // Later tokens see more keys: the long tasks go first so that threads end together.
        const size_t tile_index = tiles - 1 - (task - before) / shape_.kv_heads;
        const size_t first = tile_index * tile_tokens_;
        const size_t tokens = std::min(tile_tokens_, sequence.token_count - first);
        attend_all(run, make_tile(sequence, (task - before) % shape_.kv_heads, first, tokens), memory);
      }
      before += tiles * shape_.kv_heads;
    }
  }

  // Every task is one chunk of the keys that a sequence's only token sees and one KV head; a thread's tasks
  // follow each other in memory.
  void attend_chunks(const RunState& run, size_t thread, const Scratch& memory) {
    size_t split_unit = TaskRanges::kNone;  // whose queries are in memory
    for (size_t task = ranges_.next_task(thread); task != TaskRanges::kNone;
         task = ranges_.next_task(thread)) {
      size_t local = task;
      size_t unit = 0;
      const BatchSequence* sequence = run.batch->sequences.data();
      for (; local >= chunks_of(*sequence) * shape_.kv_heads; ++sequence) {
        local -= chunks_of(*sequence) * shape_.kv_heads;
        unit += shape_.kv_heads;
      }
      const size_t head = local / chunks_of(*sequence);
      const Tile tile = make_tile(*sequence, head, 0, 1);
      if (split_unit != unit + head) split_queries(run, tile, memory);
      split_unit = unit + head;
      attend_chunk(run, tile, local % chunks_of(*sequence), unit + head, memory);
    }
  }

  Tile make_tile(const BatchSequence& sequence, size_t head, size_t first_token, size_t tokens) const {
    return {&sequence,
            sequence.pages_of(kv_.geometry().layer_slides(shape_.layer)),
            kv_.head(shape_.layer, head),
            head,
            first_token,
            tokens,
            shape_.first_seen(sequence.position + first_token)};
  }
  size_t chunks_of(const BatchSequence& sequence) const {  // of a sequence with one new token
    return sequence.position / kChunkKeys - shape_.first_seen(sequence.position) / kChunkKeys + 1;
  }

  size_t capacity() const { return tile_tokens_ * group_; }
  size_t digit_bytes() const {
    return layout_.bits == 16 ? shape_.head_dim * sizeof(float) : query_bytes(shape_.head_dim);
  }
  size_t tiles_of(const BatchSequence& sequence) const {
    return (sequence.token_count + tile_tokens_ - 1) / tile_tokens_;
  }
  size_t split_units() const { return 4 * threads_; }
  size_t split_chunks() const { return kv_.pages() / kChunkPages + 1; }

  Scratch carve(std::byte* base) const {
    const size_t rows = capacity();
    const auto next_bytes = [&](size_t bytes) {
      std::byte* at = base;
      base += tile::round_up(bytes, 64);
      return at;
    };
    const auto next_floats = [&](size_t count) {
      return reinterpret_cast<float*>(next_bytes(count * sizeof(float)));
    };
    Scratch s{};
    s.scores = next_floats(rows * kChunkKeys);
    s.digits = reinterpret_cast<uint8_t*>(next_bytes(rows * digit_bytes()));
    s.queries = reinterpret_cast<QueryTerms*>(next_bytes(rows * sizeof(QueryTerms)));
    for (PageWeights& weights : s.weights) {
      weights.digits = reinterpret_cast<uint8_t*>(next_bytes(rows * kWeightBytes));
      weights.steps = next_floats(rows);
    }
    s.constants = next_floats(rows * kConstantLanes);
    s.chunk = {next_floats(rows * padded_), next_floats(rows), next_floats(rows)};
    s.total = {next_floats(rows * padded_), next_floats(rows), next_floats(rows)};
    s.end = base;
    return s;
  }

  void attend_all(const RunState& run, const Tile& tile, const Scratch& memory) const {
    const size_t rows = tile.tokens * group_;
    split_queries(run, tile, memory);
    run_chunk(tile, tile.first_chunk(), memory, memory.total);
    for (size_t chunk = tile.first_chunk() + 1; chunk < tile.chunks(); ++chunk) {
      run_chunk(tile, chunk, memory, memory.chunk);
      merge(memory.chunk, memory.total, rows);
    }
    store(run, tile, memory.total);
  }

  // One chunk of the keys that a token sees, by its number among them; the thread that finishes the unit
  // merges its chunks, in order.
  void attend_chunk(const RunState& run, const Tile& tile, size_t chunk, size_t unit,
                    const Scratch& memory) const {
    run_chunk(tile, tile.first_chunk() + chunk, memory, shared_partial(unit, chunk));
    if (!shared_.finish_chunk(unit)) return;
    const Partial total = shared_partial(unit, 0);
    for (size_t other = 1; other < tile.chunks() - tile.first_chunk(); ++other)
      merge(shared_partial(unit, other), total, group_);
    store(run, tile, total);
  }

  Partial shared_partial(size_t unit, size_t chunk) const {
    float* at = shared_.at(unit, chunk);
    return {at, at + group_ * padded_, at + group_ * (padded_ + 1)};
  }

  void split_queries(const RunState& run, const Tile& tile, const Scratch& memory) const {
    for (size_t q = 0; q < tile.tokens * group_; ++q) {
      const size_t position = tile.sequence->position + tile.first_token + q / group_;
      const float scale = shape_.scale * log_scale(shape_, position) * kLogTwoOfE;
      const float* source = qkv_.floats(run, tile.sequence->first_row + tile.first_token + q / group_) +
                            (tile.head * group_ + q % group_) * shape_.head_dim;
      uint8_t* digits = memory.digits + q * digit_bytes();
      if (layout_.bits == 16) {
        auto* scaled = reinterpret_cast<float*>(digits);
        for (size_t i = 0; i < shape_.head_dim; ++i) scaled[i] = source[i] * scale;
      } else {
        (layout_.bits == 8 ? kernels_.attention_rows.split_query8 : kernels_.attention_rows.split_query4)(
            source, shape_.head_dim, scale, digits, memory.queries + q);
      }
    }
  }

  void run_chunk(const Tile& tile, size_t chunk, const Scratch& memory, const Partial& out) const {
    const size_t rows = tile.tokens * group_;
    const size_t first_key = chunk * kChunkKeys;
    const size_t keys = std::min(kChunkKeys, tile.keys() - first_key);
    const size_t begin = chunk * kChunkPages;
    const size_t first = std::max(begin, tile.first_key / kKvPageTokens);
    const size_t end = begin + (keys + kKvPageTokens - 1) / kKvPageTokens;
    for (size_t page = first; page < end; ++page) {
      const uint8_t* ahead = page + kPagesAhead < end
                                 ? tile.keys_of(page + kPagesAhead)
                                 : tile.values_of(std::min(first + page + kPagesAhead - end, end - 1));
      const size_t key = (page - begin) * kKvPageTokens;
      score_page(tile.keys_of(page), ahead, std::min(kKvPageTokens, keys - key), rows, memory.scores + key,
                 memory);
    }
    softmax(tile, first_key, keys, memory, out);
    std::fill_n(out.output, rows * padded_, 0.0f);
    if (layout_.bits == 4) std::fill_n(memory.constants, rows * kConstantLanes, 0.0f);
    // A page's weights are split while the products of the page before go on: by themselves they would wait
    // for two divisions.
    const auto keys_of = [&](size_t page) {
      return std::min(kKvPageTokens, keys - (page - begin) * kKvPageTokens);
    };
    const auto split = [&](size_t page) {
      split_page(tile.values_of(page), (page - begin) * kKvPageTokens, keys_of(page), rows, memory,
                 memory.weights[page % 2]);
    };
    if (layout_.bits != 16) split(first);
    for (size_t page = first; page < end; ++page) {
      if (layout_.bits != 16 && page + 1 < end) split(page + 1);
      const uint8_t* ahead = nullptr;
      const size_t later = page + kPagesAhead;
      if (later < end) {
        ahead = tile.values_of(later);
        prefetch(ahead + layout_.v_scales(), ahead + layout_.v_bytes());
      } else if (later < tile.pages.size() && end == begin + kChunkPages) {
        ahead = tile.keys_of(later);  // of the next chunk, which this thread probably takes
        prefetch(ahead + layout_.v_scales(), ahead + layout_.k_bytes());
      }
      add_page(tile.values_of(page), ahead, (page - begin) * kKvPageTokens, keys_of(page), rows, memory,
               memory.weights[page % 2], out);
    }
    if (layout_.bits == 4) add_constants(memory, rows, out);
  }

  // Scores of the page's first `keys` tokens with every query.
  void score_page(const uint8_t* block, const uint8_t* ahead, size_t keys, size_t rows, float* scores,
                  const Scratch& memory) const {
    if (layout_.bits == 16) {
      kernels_.floats.product_f16({.panels = block,
                                   .panel_stride = layout_.k_panel_bytes(),
                                   .rows = keys,
                                   .columns = shape_.head_dim,
                                   .x = reinterpret_cast<const float*>(memory.digits),
                                   .x_stride = shape_.head_dim,
                                   .tokens = rows,
                                   .bias = nullptr,
                                   .y = scores,
                                   .y_stride = kChunkKeys,
                                   .accumulate = false});
      return;
    }
    (layout_.bits == 8 ? kernels_.attention_products.score_keys8
                       : kernels_.attention_products.score_keys4)({.panels = block,
                                                                   .panel_stride = layout_.k_panel_bytes(),
                                                                   .keys = keys,
                                                                   .head_dim = shape_.head_dim,
                                                                   .query = memory.digits,
                                                                   .query_stride = digit_bytes(),
                                                                   .terms = memory.queries,
                                                                   .queries = rows,
                                                                   .y = scores,
                                                                   .y_stride = kChunkKeys,
                                                                   .ahead = ahead});
  }

  // Turns scores into weights; keys after a query's own token or before its window weigh 0, and so does what
  // fills the last page. Only pages from the one with the tile's first key on are read or written.
  void softmax(const Tile& tile, size_t first_key, size_t keys, const Scratch& memory,
               const Partial& out) const {
    const size_t end = tile::round_up(keys, kKvPageTokens);
    const size_t begin = tile.first_key <= first_key ? 0 : tile.first_key - first_key;
    const size_t first_page = begin / kKvPageTokens * kKvPageTokens;
    for (size_t q = 0; q < tile.tokens * group_; ++q) {
      const size_t position = tile.sequence->position + tile.first_token + q / group_;
      const size_t seen_end = position < first_key ? 0 : std::min(keys, position - first_key + 1);
      const size_t first = shape_.first_seen(position);
      const size_t hidden = std::clamp(first > first_key ? first - first_key : 0, first_page, end);
      const size_t seen = seen_end > hidden ? seen_end - hidden : 0;
      float* row = memory.scores + q * kChunkKeys;
      std::fill(row + first_page, row + hidden, 0.0f);
      float* scores = row + hidden;
      if (shape_.alibi > 0) {
        const float slope = alibi_slope(shape_, tile.head * group_ + q % group_) * kLogTwoOfE;
        const auto distance = static_cast<int32_t>(position - first_key - hidden);
        for (int32_t i = 0; i < static_cast<int32_t>(seen); ++i)
          scores[i] -= slope * static_cast<float>(distance - i);
      }
      if (shape_.soft_cap > 0) kernels_.rows.soft_cap(scores, shape_.soft_cap * kLogTwoOfE, seen, scores);
      out.reference[q] = seen > 0 ? std::ceil(kernels_.rows.maximum(scores, seen)) : kNothing;
      out.sum[q] =
          (layout_.bits == 4 ? kernels_.attention_rows.coarse_powers : kernels_.attention_rows.powers)(
              scores, out.reference[q], seen, end - hidden);
    }
  }

  void split_page(const uint8_t* block, size_t first_key, size_t keys, size_t rows, const Scratch& memory,
                  const PageWeights& weights) const {
    (layout_.bits == 8 ? kernels_.attention_rows.split_weights8 : kernels_.attention_rows.split_weights4)(
        {.weights = memory.scores + first_key,
         .stride = kChunkKeys,
         .queries = rows,
         .keys = keys,
         .scales = reinterpret_cast<const uint16_t*>(block + layout_.v_scales()),
         .minima = reinterpret_cast<const uint16_t*>(block + layout_.v_minima()),
         .digits = weights.digits,
         .steps = weights.steps,
         .constants = memory.constants});
  }

  void add_page(const uint8_t* block, const uint8_t* ahead, size_t first_key, size_t keys, size_t rows,
                const Scratch& memory, const PageWeights& weights, const Partial& out) const {
    if (layout_.bits == 16) {
      kernels_.floats.product_f16({.panels = block,
                                   .panel_stride = layout_.v_panel_bytes(),
                                   .rows = shape_.head_dim,
                                   .columns = keys,
                                   .x = memory.scores + first_key,
                                   .x_stride = kChunkKeys,
                                   .tokens = rows,
                                   .bias = nullptr,
                                   .y = out.output,
                                   .y_stride = padded_,
                                   .accumulate = true});
      return;
    }
    (layout_.bits == 8 ? kernels_.attention_products.add_values8
                       : kernels_.attention_products.add_values4)({.panels = block,
                                                                   .panel_stride = layout_.v_panel_bytes(),
                                                                   .keys = keys,
                                                                   .head_dim = shape_.head_dim,
                                                                   .digits = weights.digits,
                                                                   .steps = weights.steps,
                                                                   .queries = rows,
                                                                   .y = out.output,
                                                                   .y_stride = padded_,
                                                                   .ahead = ahead});
  }

  // What 4-bit values add to all dimensions alike.
  void add_constants(const Scratch& memory, size_t rows, const Partial& out) const {
    for (size_t q = 0; q < rows; ++q) {
      const float* lanes = memory.constants + q * kConstantLanes;
      float constant = 0;
      for (size_t i = 0; i < kConstantLanes; ++i) constant += lanes[i];
      float* output = out.output + q * padded_;
      for (size_t i = 0; i < shape_.head_dim; ++i) output[i] += constant;
    }
  }

  // total += part, both brought to the larger reference by exact powers of two.
  void merge(const Partial& part, const Partial& total, size_t rows) const {
    for (size_t q = 0; q < rows; ++q) {
      if (part.reference[q] == kNothing) continue;
      const float reference = std::fmax(part.reference[q], total.reference[q]);
      const float keep = power_of_two(total.reference[q] - reference);
      const float scale_part = power_of_two(part.reference[q] - reference);
      total.reference[q] = reference;
      total.sum[q] = total.sum[q] * keep + part.sum[q] * scale_part;
      float* output = total.output + q * padded_;
      const float* added = part.output + q * padded_;
      for (size_t i = 0; i < shape_.head_dim; ++i) output[i] = output[i] * keep + added[i] * scale_part;
    }
  }

  void store(const RunState& run, const Tile& tile, const Partial& total) const {
    for (size_t q = 0; q < tile.tokens * group_; ++q) {
      float* target = out_.floats(run, tile.sequence->first_row + tile.first_token + q / group_) +
                      (tile.head * group_ + q % group_) * shape_.head_dim;
      const float inverse = 1.0f / total.sum[q];
      for (size_t i = 0; i < shape_.head_dim; ++i) target[i] = total.output[q * padded_ + i] * inverse;
    }
  }

  const Kernels& kernels_;
  View qkv_;
  View out_;
  Attention shape_;
  PagedKv& kv_;
  KvBlockLayout layout_;
  size_t group_;
  size_t tile_tokens_;
  size_t threads_;
  TaskRanges ranges_;
  size_t padded_;  // head size in whole panels
  SplitAttention& shared_;
  bool split_ = false;
};

}  // namespace

std::unique_ptr<Node> make_attend_node(const NodeContext& context, const Op& op, const Attention& attention) {
  return std::make_unique<AttendNode>(context, op, attention);
}

}  // namespace tessera::cpu
