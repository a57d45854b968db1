#include "engine/quantize/calibration/run_ops.h"

#include <algorithm>
#include <cassert>
#include <utility>
#include <variant>

#include "engine/quantize/calibration/float_ops.h"
#include "graph/overloaded.h"

namespace tessera::quantize {

OpRun::OpRun(DenseProducts& products, DenseProduct::Precision precision, const FloatLayer& layer,
             std::span<const size_t> windows)
    : products_(products), precision_(precision), layer_(layer), windows_(windows) {}

FloatMatrix OpRun::release(TensorId id) {
  FloatMatrix values = std::move(values_.at(id));
  values_.erase(id);
  return values;
}

bool OpRun::read_later(TensorId id, size_t after) const {
  const std::vector<Op>& ops = layer_.graph().graph->ops;
  return std::any_of(ops.begin() + static_cast<std::ptrdiff_t>(after) + 1, ops.end(), [&](const Op& op) {
    return std::find(op.inputs.begin(), op.inputs.end(), id) != op.inputs.end();
  });
}

FloatMatrix OpRun::input_for_change(TensorId id, size_t op) {
  return read_later(id, op) ? values_.at(id) : release(id);
}

void OpRun::run(size_t first, size_t last, const OpObserver& observer) {
  for (size_t index = first; index < last; ++index) {
    run_op(index, observer);
    const Op& op = layer_.graph().graph->ops[index];
    for (const TensorId id : op.inputs)
      if (!read_later(id, index)) values_.erase(id);
  }
}

void OpRun::run_op(size_t index, const OpObserver& observer) {
  const Op& op = layer_.graph().graph->ops[index];
  // Ops that find_layers keeps out of layers.
  const auto never = [](const auto&) { assert(false); };
  std::visit(
      Overloaded{
          [&](const Norm& norm) { run_norm(op, norm); },
          [&](const Linear& linear) {
            if (observer.linear) observer.linear(index, values_.at(op.inputs[0]));
            set(op.outputs[0], run_linear(op, linear));
          },
          [&](const HeadNorm& norm) {
            FloatMatrix x = input_for_change(op.inputs[0], index);
            normalize_heads(products_, norm, layer_.values(norm.query_gain), layer_.values(norm.key_gain), x);
            set(op.outputs[0], std::move(x));
          },
          [&](const Rope& rope) {
            FloatMatrix x = input_for_change(op.inputs[0], index);
            apply_rope(products_, rope, windows_, x);
            set(op.outputs[0], std::move(x));
          },
          [&](const Attention& attention) {
            const FloatMatrix& inputs = values_.at(op.inputs[0]);
            if (observer.attention) observer.attention(index, inputs);
            set(op.outputs[0], attend(products_, attention, windows_, inputs));
          },
          [&](const Gate& gate) { set(op.outputs[0], gated(products_, gate, values_.at(op.inputs[0]))); },
          [&](const SoftCap& kind) { never(kind); }, [&](const Gather& kind) { never(kind); },
          [&](const Embed& kind) { never(kind); }, [&](const AddPosition& kind) { never(kind); },
          [&](const Input& kind) { never(kind); }, [&](const Quantize& kind) { never(kind); },
          [&](const RotatedGain& kind) { never(kind); }},
      op.kind);
}

void OpRun::run_norm(const Op& op, const Norm& norm) {
  TensorId read = op.inputs[0];
  if (op.inputs.size() == 2) {
    read = op.outputs[1];
    if (values_.count(read) == 0) {
      FloatMatrix sum = values_.at(op.inputs[0]);
      add_rows(products_, sum, values_.at(op.inputs[1]), norm.added_multiplier);
      set(read, std::move(sum));
    }
  }
  set(op.outputs[0], normalized(products_, values_.at(read), layer_.values(norm.gain),
                                norm.bias ? layer_.values(*norm.bias) : std::span<float>(), norm.epsilon));
}

FloatMatrix OpRun::run_linear(const Op& op, const Linear& linear) {
  const FloatMatrix& x = values_.at(op.inputs[0]);
  FloatMatrix out(x.rows, layer_.graph().graph->tensors[op.outputs[0]].columns);
  size_t first = 0;
  for (const LinearPart& part : linear.parts) {
    const FloatMatrix& weights = layer_.matrix(part.weight);
    project_into(products_, precision_, x, weights, layer_.bias(part), out, first);
    first += weights.rows;
  }
  return out;
}

void run_layer(DenseProducts& products, DenseProduct::Precision precision, const FloatLayer& layer,
               std::span<const size_t> windows, FloatMatrix& residual, const OpObserver& observer) {
  const LayerGraph& graph = layer.graph();
  OpRun run(products, precision, layer, windows);
  run.set(graph.before.stream, std::move(residual));
  run.run(graph.before.op, graph.after.op, observer);
  residual = run.release(graph.after.parts[0]);
  if (graph.after.parts.size() != 2) return;
  const auto& norm = std::get<Norm>(graph.graph->ops[graph.after.op].kind);
  add_rows(products, residual, run.release(graph.after.parts[1]), norm.added_multiplier);
}

}  // namespace tessera::quantize
