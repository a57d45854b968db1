// The one builder of graphs: reads the description of a decoder into ops.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/models/description.h"
#include "graph/graph.h"

namespace tessera {

// A tensor of the graph: weights[i] of a graph belongs to tensors[i].
struct DecoderTensor {
  Role role;
  size_t layer = 0;  // of roles in layers
  std::string name;  // in the .tess file
  Scheme scheme = Scheme::f32;
  size_t rows = 1;  // 1 for vectors
  size_t columns = 0;
};

// tensors holds every role of the description, for every layer, and orders of columns where the model's
// matrices are stored in one; without them nothing of the graph is different. Throws FileError that begins
// with source when matrices that read one input differ in the activations that their schemes take.
Graph decoder_graph(const DecoderDescription& description, const std::vector<DecoderTensor>& tensors,
                    const std::string& source);

}  // namespace tessera
