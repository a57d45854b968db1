// What every step of the recipe works with besides the layer itself.
#pragma once

#include <functional>
#include <string>

#include "backends/dense_products.h"

namespace tessera::quantize {

struct LayerContext {
  DenseProducts& products;
  DenseProduct::Precision precision;             // of the float model's products
  std::function<void(const std::string&)> note;  // is told of every choice in one line; may be empty

  void say(const std::string& line) const {
    if (note) note(line);
  }
};

}  // namespace tessera::quantize
