// What every step of the recipe works with besides the layer itself.
#pragma once

#include <functional>
#include <string>

#include "backends/dense_products.h"
#include "engine/quantize/calibration/layer_weights.h"

namespace tessera::quantize {

struct LayerContext {
  DenseProducts& products;
  DenseProduct::Precision precision;  // of the float model's products
  const DecoderShape& shape;
  std::function<void(const std::string&)> note;  // is told of every choice in one line; may be empty
};

}  // namespace tessera::quantize
