#include "engine/models/model_graph.h"

#include <fmt/format.h>

#include <array>

#include "engine/models/families.h"

namespace tessera {

namespace {

const Family& find_family(const std::string& name, const std::string& source) {
  static const std::array<const Family*, 2> kFamilies = {&llama_family, &qwen2_family};
  std::string known;
  for (const Family* family : kFamilies) {
    if (family->name == name) return *family;
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", family->name);
  }
  throw FileError(fmt::format("{}: model.family: expected one of {}, found \"{}\"", source, known, name));
}

}  // namespace

Graph build_graph(const TessFile& file) {
  return find_family(file.header().hyperparameters.family, file.path()).graph(file);
}

std::vector<ExpectedTensor> expected_tensors(const Hyperparameters& hyperparameters) {
  return find_family(hyperparameters.family, "hyperparameters").tensors(hyperparameters);
}

}  // namespace tessera
