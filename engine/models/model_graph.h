// From hyperparameters to the tensors that a model has, and from a file's tensors to its graph.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/models/tensor_source.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/tensor_roles.h"
#include "gguf-like-format/tess/tess_file.h"
#include "graph/graph.h"

namespace tessera {

// A matrix or vector of a model and where it comes from in a checkpoint: what the importer reads, the reader
// checks and the graph uses.
struct ExpectedTensor {
  Role role = Role::token_embedding;
  uint64_t layer = 0;           // of roles in layers
  std::string name;             // in the .tess file, "layers.0.q"
  TensorSource source;          // in the checkpoint, "model.layers.0.self_attn.q_proj.weight"
  std::vector<uint64_t> shape;  // [n] vectors stay f32; [rows, columns] matrices are quantized
};

// In the order in which tensors are stored. Throws FileError naming the field for hyperparameters that no
// model can have.
std::vector<ExpectedTensor> expected_tensors(const Hyperparameters& hyperparameters);

// The order of columns (u32) that a file may hold beside its expected tensors for the matrix of this role and
// those that read the same input, all of which are then stored in it: stored column i is column order[i] of
// the matrix. It may lie anywhere among the file's tensors, and nothing of a checkpoint is its source.
// Nothing for tensors whose columns always lie as they are: embeddings, heads and vectors.
std::optional<ExpectedTensor> column_order(const Hyperparameters& hyperparameters, Role matrix,
                                           uint64_t layer);

// The graph over a file's tensors, with those orders of columns that it holds. Throws FileError for an
// unknown family or a missing or mis-shaped tensor.
Graph build_graph(const TessFile& file);
// The same with other hyperparameters than the file's, which ask for the same tensors.
Graph build_graph(const TessFile& file, const Hyperparameters& hyperparameters);

// The graph of a model whose matrices have the schemes that scheme_of says, without a file. Throws FileError
// as expected_tensors does, and for schemes that cannot share an input.
Graph build_graph(const Hyperparameters& hyperparameters,
                  const std::function<Scheme(const ExpectedTensor&)>& scheme_of);

}  // namespace tessera
