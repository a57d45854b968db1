// The float weights of one layer in memory: what the steps of the recipe change.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_matrix.h"
#include "engine/quantize/calibration/layer_graph.h"
#include "engine/quantize/plan/weight_plan.h"

namespace tessera::quantize {

class FloatLayer {
 public:
  // All weights are zero. graph must outlive the object.
  explicit FloatLayer(const LayerGraph& graph);

  const LayerGraph& graph() const { return *graph_; }

  // A matrix of the layer, [rows, columns]; a vector is one row. id must be one of graph().weights.
  FloatMatrix& matrix(WeightId id) { return weights_[index_of(id)]; }
  const FloatMatrix& matrix(WeightId id) const { return weights_[index_of(id)]; }
  std::span<float> values(WeightId id) { return matrix(id).values; }
  std::span<const float> values(WeightId id) const { return matrix(id).values; }
  // The bias of a projection; empty when it has none.
  std::span<float> bias(const LinearPart& part);
  std::span<const float> bias(const LinearPart& part) const;

 private:
  size_t index_of(WeightId id) const;

  const LayerGraph* graph_;
  std::vector<FloatMatrix> weights_;  // in the order of graph().weights
};

// Reads all tensors of a layer. planned: one for each of graph.weights, in the same order. Throws FileError
// for values that are not finite; folder names the checkpoint.
FloatLayer load_layer(DenseProducts& products, const std::string& folder, const LayerGraph& graph,
                      std::span<const PlannedWeight* const> planned);

}  // namespace tessera::quantize
