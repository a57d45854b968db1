// Attention, first half: the new keys and values go into their pages.
#include <algorithm>

#include "backends/cpu/node.h"

namespace tessera::cpu {

namespace {

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
    size_t task = next_task();
    size_t before = 0;
    for (const BatchSequence& sequence : batch.sequences) {
      const size_t first_page = sequence.position / kKvPageTokens;
      const size_t last_page = (sequence.position + sequence.token_count - 1) / kKvPageTokens;
      const size_t tasks = (last_page - first_page + 1) * shape_.kv_heads;
      while (task < before + tasks) {
        const size_t local = task - before;
        store(run, sequence, first_page + local / shape_.kv_heads, local % shape_.kv_heads);
        task = next_task();
      }
      before += tasks;
    }
  }

 private:
  void store(const RunState& run, const BatchSequence& sequence, size_t page, size_t head) const {
    const PagedKv::HeadBlocks blocks = kv_.head(shape_.layer, head);
    const uint32_t id = sequence.pages_of(kv_.geometry().layer_slides(shape_.layer))[page];
    uint8_t* keys = blocks.keys(id);
    uint8_t* values = blocks.values(id);
    const size_t first = std::max(sequence.position, page * kKvPageTokens);
    const size_t last = std::min(sequence.position + sequence.token_count, (page + 1) * kKvPageTokens);
    for (size_t position = first; position < last; ++position) {
      const float* row = qkv_.floats(run, sequence.first_row + position - sequence.position);
      const float* key = row + (shape_.query_heads + head) * shape_.head_dim;
      store_token(layout_, keys, values, position % kKvPageTokens, key,
                  key + shape_.kv_heads * shape_.head_dim);
    }
  }

  View qkv_;
  Attention shape_;
  PagedKv& kv_;
  KvBlockLayout layout_;
};

}  // namespace

std::unique_ptr<Node> make_kv_store_node(const NodeContext& context, const Op& op,
                                         const Attention& attention) {
  return std::make_unique<KvStoreNode>(context, op, attention);
}

}  // namespace tessera::cpu
