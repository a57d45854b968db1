// Files of torch.save against the same tensors in safetensors files (make_pytorch_golden.py).
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "gguf-like-format/mapped_file.h"
#include "gguf-like-format/pytorch/pytorch_file.h"

using namespace tessera;

namespace {

const std::string kFolder = std::string(TESSERA_SOURCE_DIR) + "/tests/golden/pytorch/";

std::string refusal(const std::string& name) {
  const MappedFile file = MappedFile::map(kFolder + name);
  try {
    parse_pytorch(file.bytes(), name);
  } catch (const FileError& error) {
    return error.what();
  }
  return "read";
}

}  // namespace

TEST_CASE("tensors of torch.save are those of the safetensors file, views and shared storages included") {
  const MappedFile other = MappedFile::map(kFolder + "tensors.safetensors");
  const std::vector<CheckpointTensor> expected = parse_safetensors(other.bytes(), "tensors.safetensors");
  REQUIRE(expected.size() == 18);
  for (const char* name : {"tensors.bin", "protocol4.bin"}) {
    CAPTURE(name);
    const MappedFile file = MappedFile::map(kFolder + name);
    const std::vector<CheckpointTensor> found = parse_pytorch(file.bytes(), name);
    REQUIRE(found.size() == expected.size());
    const std::byte* embedding = nullptr;
    for (const CheckpointTensor& tensor : found) {
      CAPTURE(tensor.name);
      const auto twin = std::find_if(expected.begin(), expected.end(),
                                     [&](const CheckpointTensor& each) { return each.name == tensor.name; });
      REQUIRE(twin != expected.end());
      CHECK(tensor.type == twin->type);
      CHECK(tensor.shape == twin->shape);
      REQUIRE(tensor.bytes.size() == twin->bytes.size());
      CHECK(std::equal(tensor.bytes.begin(), tensor.bytes.end(), twin->bytes.begin()));
      if (tensor.name == "embedding") embedding = tensor.bytes.data();
      if (tensor.name == "head") CHECK(tensor.bytes.data() == embedding);  // mapped once
    }
  }
}

TEST_CASE("what torch.save writes and is no dictionary of tensors is refused") {
  CHECK(refusal("nested.bin") == "nested.bin: data.pkl: tensor model: expected a tensor, found a dictionary");
  CHECK(refusal("module.bin").find("only names that tensors need, found torch.nn.modules.linear.Linear") !=
        std::string::npos);
  CHECK(refusal("old.bin").find("since version 1.6, found the older one") != std::string::npos);
}
