// The gain of a norm in a rotated model. A task is one row. Few rows pass here, those whose logits are
// computed, and each costs some thousandths of what the head does: plain C++, so that every instruction set
// gives the same bits.
#include <algorithm>

#include "backends/cpu/node.h"
#include "graph/rotation.h"

namespace tessera::cpu {

namespace {

class RotatedGainNode : public Node {
 public:
  RotatedGainNode(const NodeContext& context, const Op& op, const RotatedGain& rotated)
      : x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        gain_(context.vector(rotated.gain)),
        rotation_(x_.columns) {}

  void execute(const RunState& run, size_t, std::span<std::byte> memory) override {
    const std::span<float> scratch(reinterpret_cast<float*>(memory.data()), x_.columns);
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task()) {
      const std::span<float> y(y_.floats(run, row), y_.columns);
      const float* x = x_.floats(run, row);
      if (y.data() != x) std::copy_n(x, y.size(), y.data());
      rotation_.undo(y, scratch);
      for (size_t i = 0; i < y.size(); ++i) y[i] *= gain_[i];
      rotation_.apply(y, scratch);
    }
  }

  size_t scratch_bytes() const override { return x_.columns * sizeof(float); }

 private:
  View x_;
  View y_;
  const float* gain_;
  Rotation rotation_;
};

}  // namespace

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const RotatedGain& rotated) {
  return std::make_unique<RotatedGainNode>(context, op, rotated);
}

}  // namespace tessera::cpu
