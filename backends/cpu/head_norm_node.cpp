// Norms of query and key heads. A task is one row.
#include <algorithm>

#include "backends/cpu/node.h"

namespace tessera::cpu {

namespace {

class HeadNormNode : public Node {
 public:
  HeadNormNode(const NodeContext& context, const Op& op, const HeadNorm& norm)
      : kernels_(*context.kernels),
        x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        query_gain_(context.vector(norm.query_gain)),
        key_gain_(context.vector(norm.key_gain)),
        query_heads_(norm.query_heads),
        heads_(norm.query_heads + norm.kv_heads),
        head_dim_(norm.head_dim),
        epsilon_(norm.epsilon) {}

  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task()) {
      const float* x = x_.floats(run, row);
      float* y = y_.floats(run, row);
      for (size_t head = 0; head < heads_; ++head) {
        const size_t first = head * head_dim_;
        const float* gain = head < query_heads_ ? query_gain_ : key_gain_;
        kernels_.rows.rms_norm(x + first, nullptr, 1.0f, nullptr, gain, epsilon_, head_dim_, y + first);
      }
      if (y != x) std::copy(x + heads_ * head_dim_, x + x_.columns, y + heads_ * head_dim_);
    }
  }

 private:
  const Kernels& kernels_;
  View x_;
  View y_;
  const float* query_gain_;
  const float* key_gain_;
  size_t query_heads_;
  size_t heads_;  // of queries and keys
  size_t head_dim_;
  float epsilon_;
};

}  // namespace

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const HeadNorm& norm) {
  return std::make_unique<HeadNormNode>(context, op, norm);
}

}  // namespace tessera::cpu
