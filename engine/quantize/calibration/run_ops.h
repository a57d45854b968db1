// Runs ops of a graph on matrices of floats, some windows of text at a time, while an observer looks on: how
// calibration sees what a layer's matrices read, whatever the family.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <unordered_map>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_layer.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/calibration/layer_graph.h"

namespace tessera::quantize {

// Either function may be empty. inputs are rows of all windows, [tokens, columns of what the op reads].
struct OpObserver {
  std::function<void(size_t op, const FloatMatrix& inputs)> linear;     // every Linear, before it runs
  std::function<void(size_t op, const FloatMatrix& inputs)> attention;  // q, k and v, before attention runs
};

class OpRun {
 public:
  // windows are the lengths of the texts that the rows hold one after another. The layer must outlive the
  // object.
  OpRun(DenseProducts& products, DenseProduct::Precision precision, const FloatLayer& layer,
        std::span<const size_t> windows);

  // What ops that are run later read as this tensor. A sum that a norm would make of its two inputs is not
  // made when it is given here.
  void set(TensorId id, FloatMatrix values) { values_[id] = std::move(values); }
  // Moves out a tensor that was set or that an op has written. No op that is still to run may read it.
  FloatMatrix release(TensorId id);

  // Runs ops [first, last) of the graph, all of them the layer's. What no later op reads is freed.
  void run(size_t first, size_t last, const OpObserver& observer = {});

 private:
  void run_op(size_t index, const OpObserver& observer);
  void run_norm(const Op& op, const Norm& norm);
  FloatMatrix run_linear(const Op& op, const Linear& linear);
  bool read_later(TensorId id, size_t after) const;
  // The tensor itself where the op is the last to read it, otherwise a copy.
  FloatMatrix input_for_change(TensorId id, size_t op);

  DenseProducts& products_;
  DenseProduct::Precision precision_;
  const FloatLayer& layer_;
  std::span<const size_t> windows_;
  std::unordered_map<TensorId, FloatMatrix> values_;
};

// Advances the residual stream, [tokens, hidden], by one layer.
void run_layer(DenseProducts& products, DenseProduct::Precision precision, const FloatLayer& layer,
               std::span<const size_t> windows, FloatMatrix& residual, const OpObserver& observer = {});

}  // namespace tessera::quantize
