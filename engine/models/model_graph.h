// From hyperparameters and stored tensors to a graph: one function per family, found by name.
#pragma once

#include <string>
#include <vector>

#include "gguf-like-format/model_header.h"
#include "gguf-like-format/tess/tess_file.h"
#include "graph/graph.h"

namespace tessera {

// Throws FileError for an unknown family or a missing or mis-shaped tensor.
Graph build_graph(const TessFile& file);

// The matrices and vectors a family's file holds, with the checkpoint names they come from: what the importer
// reads, the reader checks and the graph uses.
struct ExpectedTensor {
  std::string name;             // in the .tess file, "layers.0.q"
  std::string source;           // in the checkpoint, "model.layers.0.self_attn.q_proj.weight"
  std::string kind;             // "q", "k", …, "norm", "bias", "embedding", "head"
  std::vector<uint64_t> shape;  // [n] vectors stay f32; [rows, columns] matrices are quantized
};
std::vector<ExpectedTensor> expected_tensors(const Hyperparameters& hyperparameters);

}  // namespace tessera
