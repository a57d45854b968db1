// Step 1 of the recipe: the residual stream rotated by one matrix and the values of every head by another,
// with norm weights folded into the projections behind them. The model's function stays what it was.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/float_layer.h"
#include "graph/rotation.h"

namespace tessera::quantize {

// Why these layers cannot be rotated, in a line that names the first op in the way; empty when they can.
std::string rotation_obstacle(std::span<const LayerGraph> layers);

class ModelRotation {
 public:
  // Of a residual stream of hidden columns. Throws std::runtime_error when a size cannot be rotated.
  ModelRotation(size_t hidden, std::span<const LayerGraph> layers);

  // A row of the embedding, or of anything else that is added to the residual stream: row * Q.
  void rotate_residual(std::span<float> row, std::vector<double>& scratch) const;
  // A row of the output head behind the output norm with these weights: (row * diag(norm)) * Q.
  void rotate_head(std::span<const float> norm, std::span<float> row, std::vector<double>& scratch) const;
  // Everything within a layer without a rotation_obstacle. Its norm weights become 1. Values are rotated
  // where the layer has an AttentionBlock.
  void rotate_layer(DenseProducts& products, FloatLayer& layer) const;

 private:
  Rotation residual_;
  std::map<size_t, Rotation> heads_;  // by head_dim
};

}  // namespace tessera::quantize
