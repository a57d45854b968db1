// Attention over paged KV in two steps: store the new keys and values, then attend page by page with a
// running (maximum, sum, output) per query. One task serves all query heads of a KV head for a few
// neighbouring tokens, so a page is expanded once for all of them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/node.h"
#include "gguf-like-format/tile_layout.h"

namespace tessera::cpu {

namespace {

constexpr size_t kPanelTokens = tile::kPanelRows;
constexpr size_t kQueriesPerTask = 16;

class KvStoreNode : public Node {
 public:
  KvStoreNode(const NodeContext& context, const Op& op, const Attention& attention)
      : qkv_(context.views[op.inputs[0]]),
        shape_(attention),
        kv_(*context.kv),
        layout_(kv_.layout(attention.layer)) {}

  // A task is one KV head of one page of one sequence: 4-bit values of neighbouring tokens share bytes, so a
  // page's values must be written by one thread.
  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    const Batch& batch = *run.batch;
    size_t task = take();
    size_t before = 0;
    for (const BatchSequence& sequence : batch.sequences) {
      const size_t first_page = sequence.position / kKvPageTokens;
      const size_t last_page = (sequence.position + sequence.token_count - 1) / kKvPageTokens;
      const size_t tasks = (last_page - first_page + 1) * shape_.kv_heads;
      while (task < before + tasks) {
        const size_t local = task - before;
        store(run, sequence, first_page + local / shape_.kv_heads, local % shape_.kv_heads);
        task = take();
      }
      before += tasks;
    }
  }

 private:
  void store(const RunState& run, const BatchSequence& sequence, size_t page, size_t head) const {
    uint8_t* block = kv_.block(shape_.layer, sequence.pages[page], head);
    const size_t first = std::max(sequence.position, page * kKvPageTokens);
    const size_t last = std::min(sequence.position + sequence.token_count, (page + 1) * kKvPageTokens);
    for (size_t position = first; position < last; ++position) {
      const float* row = qkv_.floats(run, sequence.first_row + position - sequence.position);
      const float* key = row + (shape_.query_heads + head) * shape_.head_dim;
      store_key(layout_, block, position % kKvPageTokens, key);
      store_value(layout_, block, position % kKvPageTokens, key + shape_.kv_heads * shape_.head_dim);
    }
  }

  View qkv_;
  Attention shape_;
  PagedKv& kv_;
  KvBlockLayout layout_;
};

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
        tile_tokens_(std::max<size_t>(1, kQueriesPerTask / group_)) {}

  void execute(const RunState& run, size_t, std::span<std::byte> scratch) override {
    size_t task = take();
    size_t before = 0;
    for (const BatchSequence& sequence : run.batch->sequences) {
      const size_t tiles = (sequence.token_count + tile_tokens_ - 1) / tile_tokens_;
      const size_t tasks = tiles * shape_.kv_heads;
      while (task < before + tasks) {
        const size_t local = task - before;
        // Later tokens see more keys: the long tasks go first so that threads end together.
        attend(run, sequence, tiles - 1 - local / shape_.kv_heads, local % shape_.kv_heads, scratch);
        task = take();
      }
      before += tasks;
    }
  }

  size_t scratch_bytes() const override {
    const size_t queries = tile_tokens_ * group_;
    return sizeof(float) * (queries * (shape_.head_dim + kKvPageTokens + padded_dim() + 2) + panel_floats());
  }

 private:
  size_t padded_dim() const { return tile::round_up(shape_.head_dim, tile::kPanelRows); }
  size_t panel_floats() const { return std::max(shape_.head_dim, kKvPageTokens) * tile::kPanelRows; }

  struct Tile {
    float* panel;    // one expanded panel
    float* query;    // [queries][head_dim], already scaled
    float* scores;   // [queries][64]
    float* output;   // [queries][padded head_dim]
    float* maximum;  // [queries]
    float* sum;      // [queries]
    size_t queries;
    size_t first_position;  // of the tile's first token
  };

  void attend(const RunState& run, const BatchSequence& sequence, size_t tile_index, size_t head,
              std::span<std::byte> scratch) const {
    const size_t first = tile_index * tile_tokens_;
    const size_t tokens = std::min(tile_tokens_, sequence.token_count - first);
    const size_t capacity = tile_tokens_ * group_;
    Tile tile{};
    tile.queries = tokens * group_;
    tile.first_position = sequence.position + first;
    tile.panel = reinterpret_cast<float*>(scratch.data());
    tile.query = tile.panel + panel_floats();
    tile.scores = tile.query + capacity * shape_.head_dim;
    tile.output = tile.scores + capacity * kKvPageTokens;
    tile.maximum = tile.output + capacity * padded_dim();
    tile.sum = tile.maximum + capacity;
    for (size_t q = 0; q < tile.queries; ++q) {
      const float* source = qkv_.floats(run, sequence.first_row + first + q / group_) +
                            (head * group_ + q % group_) * shape_.head_dim;
      for (size_t i = 0; i < shape_.head_dim; ++i)
        tile.query[q * shape_.head_dim + i] = source[i] * shape_.scale;
      tile.maximum[q] = -std::numeric_limits<float>::infinity();
      tile.sum[q] = 0;
    }
    std::fill_n(tile.output, tile.queries * padded_dim(), 0.0f);

    const size_t end =
        tile.first_position + tokens;  // keys at positions below end are seen by the last token
    for (size_t page = 0; page * kKvPageTokens < end; ++page) {
      const uint8_t* block = kv_.block(shape_.layer, sequence.pages[page], head);
      const size_t keys = std::min(kKvPageTokens, end - page * kKvPageTokens);
      score_page(block, keys, tile);
      softmax_page(page * kKvPageTokens, keys, tile);
      add_values(block, keys, tile);
    }
    for (size_t q = 0; q < tile.queries; ++q) {
      float* target = out_.floats(run, sequence.first_row + first + q / group_) +
                      (head * group_ + q % group_) * shape_.head_dim;
      const float inverse = 1.0f / tile.sum[q];
      for (size_t i = 0; i < shape_.head_dim; ++i) target[i] = tile.output[q * padded_dim() + i] * inverse;
    }
  }

  // scores[q][key] = query . key for the page's first `keys` tokens.
  void score_page(const uint8_t* block, size_t keys, const Tile& tile) const {
    for (size_t i = 0; i * kPanelTokens < keys; ++i) {
      const uint8_t* codes = block + layout_.k_panel(i);
      const auto* scales = reinterpret_cast<const uint16_t*>(codes + layout_.k_codes_bytes());
      if (layout_.bits == 8) kernels_.expand_k8(codes, scales, shape_.head_dim, tile.panel);
      if (layout_.bits == 4)
        kernels_.expand_k4(codes, scales, scales + kPanelTokens, shape_.head_dim, tile.panel);
      const FloatProduct job{
          .panels = layout_.bits == 16 ? static_cast<const void*>(codes) : tile.panel,
          .panel_stride = 0,
          .rows = std::min(kPanelTokens, keys - i * kPanelTokens),
          .columns = shape_.head_dim,
          .x = tile.query,
          .x_stride = shape_.head_dim,
          .tokens = tile.queries,
          .bias = nullptr,
          .y = tile.scores + i * kPanelTokens,
          .y_stride = kKvPageTokens,
          .accumulate = false,
      };
      (layout_.bits == 16 ? kernels_.product_f16 : kernels_.product_f32)(job);
    }
  }

  // Turns scores into weights relative to each query's running maximum; keys after the query's own token
  // weigh 0.
  void softmax_page(size_t first_key, size_t keys, const Tile& tile) const {
    for (size_t q = 0; q < tile.queries; ++q) {
      const size_t position = tile.first_position + q / group_;
      const size_t seen = position < first_key ? 0 : std::min(keys, position - first_key + 1);
      float* scores = tile.scores + q * kKvPageTokens;
      if (seen > 0) {
        const float largest = kernels_.maximum(scores, seen);
        if (largest > tile.maximum[q]) {
          if (tile.sum[q] > 0) {
            const float factor = std::exp(tile.maximum[q] - largest);
            tile.sum[q] *= factor;
            kernels_.scale_row(tile.output + q * padded_dim(), factor, shape_.head_dim);
          }
          tile.maximum[q] = largest;
        }
        tile.sum[q] += kernels_.exponentials(scores, tile.maximum[q], seen);
      }
      std::fill(scores + seen, scores + keys, 0.0f);
    }
  }

  void add_values(const uint8_t* block, size_t keys, const Tile& tile) const {
    const auto* scales = reinterpret_cast<const uint16_t*>(block + layout_.v_scales());
    const auto* minima = reinterpret_cast<const uint16_t*>(block + layout_.v_minima());
    for (size_t i = 0; i < layout_.v_panels(); ++i) {
      const uint8_t* codes = block + layout_.v_panel(i);
      if (layout_.bits == 8) kernels_.expand_v8(codes, scales, keys, tile.panel);
      if (layout_.bits == 4) kernels_.expand_v4(codes, scales, minima, keys, tile.panel);
      const FloatProduct job{
          .panels = layout_.bits == 16 ? static_cast<const void*>(codes) : tile.panel,
          .panel_stride = 0,
          .rows = std::min(tile::kPanelRows, shape_.head_dim - i * tile::kPanelRows),
          .columns = keys,
          .x = tile.scores,
          .x_stride = kKvPageTokens,
          .tokens = tile.queries,
          .bias = nullptr,
          .y = tile.output + i * tile::kPanelRows,
          .y_stride = padded_dim(),
          .accumulate = true,
      };
      (layout_.bits == 16 ? kernels_.product_f16 : kernels_.product_f32)(job);
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
};

}  // namespace

std::unique_ptr<Node> make_kv_store_node(const NodeContext& context, const Op& op,
                                         const Attention& attention) {
  return std::make_unique<KvStoreNode>(context, op, attention);
}

std::unique_ptr<Node> make_attend_node(const NodeContext& context, const Op& op, const Attention& attention) {
  return std::make_unique<AttendNode>(context, op, attention);
}

}  // namespace tessera::cpu
