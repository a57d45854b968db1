// The model families this build knows: one object each, defined in the file of its name.
#pragma once

#include <string_view>
#include <vector>

#include "engine/models/model_graph.h"

namespace tessera {

struct Family {
  std::string_view name;  // as in Hyperparameters::family
  std::vector<ExpectedTensor> (*tensors)(const Hyperparameters&);
  Graph (*graph)(const TessFile&);
};

extern const Family llama_family;
extern const Family qwen2_family;

}  // namespace tessera
