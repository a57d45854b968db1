// The Qwen2 family: a Llama decoder whose query, key and value projections always carry a bias and whose
// attention output never does.
#include <fmt/format.h>

#include "engine/models/decoder.h"
#include "engine/models/families.h"

namespace tessera {

namespace {

constexpr DecoderBiases kBiases = {true, false};

void check(const Hyperparameters& hyperparameters, const std::string& source) {
  check_decoder(hyperparameters, source);
  if (!hyperparameters.qkv_bias)
    throw FileError(fmt::format("{}: model.qkv_bias: expected true for qwen2, found false", source));
  if (hyperparameters.output_bias)
    throw FileError(fmt::format("{}: model.output_bias: expected false for qwen2, found true", source));
}

std::vector<ExpectedTensor> tensors_of(const Hyperparameters& hyperparameters) {
  check(hyperparameters, "hyperparameters");
  return decoder_tensors(hyperparameters, kBiases);
}

Graph graph_of(const TessFile& file) {
  check(file.header().hyperparameters, file.path());
  return decoder_graph(file, kBiases);
}

}  // namespace

const Family qwen2_family = {"qwen2", tensors_of, graph_of};

}  // namespace tessera
