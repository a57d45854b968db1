// What the Llama-like families share: a pre-norm decoder with rotary positions, grouped-query attention and a
// gated feed-forward part. A family states how it deviates and calls these.
#pragma once

#include <vector>

#include "engine/models/model_graph.h"
#include "graph/graph.h"

namespace tessera {

struct DecoderBiases {
  bool query_key_value = false;
  bool attention_output = false;
};

// Throws FileError that begins with source when a number is out of range or numbers disagree, so that
// everything computed from them afterwards fits size_t.
void check_decoder(const Hyperparameters& hyperparameters, const std::string& source);

// The tensors of such a model in the order they are stored. The numbers must have passed check_decoder.
std::vector<ExpectedTensor> decoder_tensors(const Hyperparameters& hyperparameters,
                                            const DecoderBiases& biases);

// The graph over a file's tensors. Throws FileError for missing or mis-shaped tensors.
Graph decoder_graph(const TessFile& file, const DecoderBiases& biases);

}  // namespace tessera
