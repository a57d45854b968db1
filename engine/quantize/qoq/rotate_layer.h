// Step 1 of the recipe: the residual stream turned by one rotation and the value heads by another, with norm
// weights folded into the projections behind them. The model's function stays what it was.
#pragma once

#include <span>
#include <vector>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/layer_weights.h"
#include "engine/quantize/qoq/rotation.h"

namespace tessera::quantize {

class ModelRotation {
 public:
  // Throws std::runtime_error when a size cannot be rotated.
  explicit ModelRotation(const DecoderShape& shape);

  // A row of the embedding, or of anything else that is added to the residual stream: row * Q.
  void residual_row(std::span<float> row, std::vector<double>& scratch) const;
  // A row of the output head behind the output norm with these weights: (row * diag(norm)) * Q.
  void head_row(std::span<const float> norm, std::span<float> row, std::vector<double>& scratch) const;
  // Everything within a layer. Its norm weights become 1.
  void layer(DenseProducts& products, LayerWeights& weights) const;

 private:
  Rotation residual_;
  Rotation head_;
};

}  // namespace tessera::quantize
