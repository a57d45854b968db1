// Steps that work on whole rows: input, norm, quantize, gather, gate, rope. A task is one row.
#include <algorithm>

#include "backends/cpu/node.h"
#include "graph/q8_row.h"

namespace tessera::cpu {

namespace {

// Where a row of y is computed: in place, or in scratch when it is to be rounded to y's type.
float* unrounded(const View& y, const RunState& run, size_t row, std::span<std::byte> scratch) {
  return y.type == ElementType::f32 ? y.floats(run, row) : reinterpret_cast<float*>(scratch.data());
}

void round_to_type(const Kernels& kernels, const View& y, const float* values, size_t row) {
  if (y.type == ElementType::q8) kernels.rows.quantize_row(values, y.columns, y.bytes(row));
  if (y.type == ElementType::bf16) kernels.rows.round_row(values, y.columns, y.bytes(row));
}

class InputNode : public Node {
 public:
  InputNode(const NodeContext& context, const Op& op) : y_(context.views[op.outputs[0]]) {}

  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    for (size_t row = next_task(); row < run.batch->tokens.size(); row = next_task()) {
      const float* from = run.batch->input.data() + row * y_.columns;
      std::copy(from, from + y_.columns, y_.floats(run, row));
    }
  }

 private:
  View y_;
};

class NormNode : public Node {
 public:
  NormNode(const NodeContext& context, const Op& op, const Norm& norm)
      : kernels_(*context.kernels),
        x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        gain_(context.vector(norm.gain)),
        bias_(norm.bias ? context.vector(*norm.bias) : nullptr),
        epsilon_(norm.epsilon),
        added_multiplier_(norm.added_multiplier),
        select_rows_(norm.select_rows) {
    if (op.inputs.size() == 2) {
      residual_ = context.views[op.inputs[1]];
      sum_ = context.views[op.outputs[1]];
      fused_ = true;
    }
  }

  void execute(const RunState& run, size_t, std::span<std::byte> scratch) override {
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task()) {
      const size_t source = select_rows_ ? run.batch->output_rows[row] : row;
      float* y = unrounded(y_, run, row, scratch);
      const float* x = x_.floats(run, source);
      const float* added = fused_ ? residual_.floats(run, source) : nullptr;
      float* sum = fused_ ? sum_.floats(run, row) : nullptr;
      if (bias_ != nullptr)
        kernels_.rows.layer_norm(x, added, added_multiplier_, sum, gain_, bias_, epsilon_, x_.columns, y);
      else
        kernels_.rows.rms_norm(x, added, added_multiplier_, sum, gain_, epsilon_, x_.columns, y);
      round_to_type(kernels_, y_, y, row);
    }
  }

  size_t scratch_bytes() const override { return x_.columns * sizeof(float); }

 private:
  const Kernels& kernels_;
  View x_;
  View residual_;
  View y_;
  View sum_;
  const float* gain_;
  const float* bias_;
  float epsilon_;
  float added_multiplier_;
  bool select_rows_;
  bool fused_ = false;
};

class QuantizeNode : public Node {
 public:
  QuantizeNode(const NodeContext& context, const Op& op)
      : kernels_(*context.kernels), x_(context.views[op.inputs[0]]), y_(context.views[op.outputs[0]]) {}

  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task()) {
      round_to_type(kernels_, y_, x_.floats(run, row), row);
    }
  }

 private:
  const Kernels& kernels_;
  View x_;
  View y_;
};

// Plain code for every instruction set: a row's columns come from L1 one by one either way.
class GatherNode : public Node {
 public:
  GatherNode(const NodeContext& context, const Op& op, const Gather& gather)
      : kernels_(*context.kernels),
        x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        order_(reinterpret_cast<const uint32_t*>(context.weight(gather.order).bytes.data())) {}

  void execute(const RunState& run, size_t, std::span<std::byte> scratch) override {
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task()) {
      const float* x = x_.floats(run, row);
      float* y = unrounded(y_, run, row, scratch);
      for (size_t i = 0; i < y_.columns; ++i) y[i] = x[order_[i]];
      round_to_type(kernels_, y_, y, row);
    }
  }

  size_t scratch_bytes() const override { return y_.columns * sizeof(float); }

 private:
  const Kernels& kernels_;
  View x_;
  View y_;
  const uint32_t* order_;
};

using Gating = void(const float* gate, const float* up, size_t n, float* y);

// Plain code for every instruction set: it does nothing but move values.
void relu_gate(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = (gate[i] < 0 ? 0.0f : gate[i]) * (up != nullptr ? up[i] : 1.0f);
}

Gating* passing(const Kernels& kernels, GateFunction function) {
  if (function == GateFunction::relu) return relu_gate;
  return function == GateFunction::silu ? kernels.rows.silu_gate : kernels.rows.gelu_gate;
}

class GateNode : public Node {
 public:
  GateNode(const NodeContext& context, const Op& op, const Gate& gate)
      : kernels_(*context.kernels),
        gate_(passing(kernels_, gate.function)),
        has_up_(gate.has_up),
        x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]) {}

  void execute(const RunState& run, size_t, std::span<std::byte> scratch) override {
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task()) {
      const float* gate = x_.floats(run, row);
      float* y = unrounded(y_, run, row, scratch);
      gate_(gate, has_up_ ? gate + y_.columns : nullptr, y_.columns, y);
      round_to_type(kernels_, y_, y, row);
    }
  }

  size_t scratch_bytes() const override { return y_.columns * sizeof(float); }

 private:
  const Kernels& kernels_;
  Gating* gate_;
  bool has_up_;
  View x_;
  View y_;
};

class SoftCapNode : public Node {
 public:
  SoftCapNode(const NodeContext& context, const Op& op, const SoftCap& cap)
      : kernels_(*context.kernels),
        x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        cap_(cap.cap) {}

  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task())
      kernels_.rows.soft_cap(x_.floats(run, row), cap_, x_.columns, y_.floats(run, row));
  }

 private:
  const Kernels& kernels_;
  View x_;
  View y_;
  float cap_;
};

class RopeNode : public Node {
 public:
  RopeNode(const NodeContext& context, const Op& op, const Rope& rope)
      : kernels_(*context.kernels),
        x_(context.views[op.inputs[0]]),
        y_(context.views[op.outputs[0]]),
        heads_(rope.heads),
        head_dim_(rope.head_dim) {
    // Layers usually share one list of frequencies, so tables are shared too.
    std::vector<RopeTable>& tables = context.run->rope;
    while (table_ < tables.size() && tables[table_].inverse_frequency != rope.inverse_frequency) ++table_;
    if (table_ == tables.size()) tables.push_back({rope.inverse_frequency, {}, {}});
  }

  void execute(const RunState& run, size_t, std::span<std::byte>) override {
    const RopeTable& table = run.rope[table_];
    const size_t half = table.half();
    const size_t rows = y_.rows(run);
    for (size_t row = next_task(); row < rows; row = next_task()) {
      const float* x = x_.floats(run, row);
      float* y = y_.floats(run, row);
      for (size_t head = 0; head < heads_; ++head) {
        const size_t first = head * head_dim_;
        kernels_.rows.rotate_head(x + first, table.cosines.data() + row * half,
                                  table.sines.data() + row * half, half, y + first);
        if (y != x) copy(x, y, first + 2 * half, first + head_dim_);
      }
      if (y != x) copy(x, y, heads_ * head_dim_, x_.columns);
    }
  }

 private:
  static void copy(const float* x, float* y, size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) y[i] = x[i];
  }

  const Kernels& kernels_;
  View x_;
  View y_;
  size_t heads_;
  size_t head_dim_;
  size_t table_ = 0;
};

}  // namespace

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Input&) {
  return std::make_unique<InputNode>(context, op);
}

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Norm& norm) {
  return std::make_unique<NormNode>(context, op, norm);
}

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Quantize&) {
  return std::make_unique<QuantizeNode>(context, op);
}

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Gather& gather) {
  return std::make_unique<GatherNode>(context, op, gather);
}

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Gate& gate) {
  return std::make_unique<GateNode>(context, op, gate);
}

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const SoftCap& cap) {
  return std::make_unique<SoftCapNode>(context, op, cap);
}

std::unique_ptr<Node> make_node(const NodeContext& context, const Op& op, const Rope& rope) {
  return std::make_unique<RopeNode>(context, op, rope);
}

}  // namespace tessera::cpu
