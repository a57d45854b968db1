// Which parts of a model suffer most from quantization: models in which one part at a time comes from the
// quantized file and everything else from a reference file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model.h"

namespace tessera {

struct MixedPart {
  std::string name;    // "layers.3", "layers.3.gate_up", "embedding and head"
  std::string scheme;  // of its matrices in the quantized file; several joined by " + "
  uint64_t weight_bytes = 0;
  double bits_per_weight = 0;
  Model model;  // looks into both models
};

// One part per layer and one for embedding and head, or, with by_matrix, four per layer: q, k and v with the
// norm before them, o, gate and up with theirs, down. Throws std::runtime_error with one line when the files
// are not of one model, or when transforms that the quantized file went through make its parts meaningless
// beside the reference's: a rotated residual stream, or for by_matrix any transform from one matrix to the
// next. Both models must outlive the parts.
std::vector<MixedPart> mix_parts(const Model& quantized, const Model& reference, bool by_matrix);

}  // namespace tessera
