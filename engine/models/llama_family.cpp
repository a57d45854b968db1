// The Llama family (Llama 1 to 3 and everything built alike): biases only where the configuration asks for
// them.
#include "engine/models/decoder.h"
#include "engine/models/families.h"

namespace tessera {

namespace {

DecoderBiases biases_of(const Hyperparameters& hyperparameters) {
  return {hyperparameters.qkv_bias, hyperparameters.output_bias};
}

std::vector<ExpectedTensor> tensors_of(const Hyperparameters& hyperparameters) {
  check_decoder(hyperparameters, "hyperparameters");
  return decoder_tensors(hyperparameters, biases_of(hyperparameters));
}

Graph graph_of(const TessFile& file) {
  check_decoder(file.header().hyperparameters, file.path());
  return decoder_graph(file, biases_of(file.header().hyperparameters));
}

}  // namespace

const Family llama_family = {"llama", tensors_of, graph_of};

}  // namespace tessera
