// The model inside the executable: a whole, verified file that means what its checkpoint says.
#include "engine/embedded_model.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/models/model_graph.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/safetensors/safetensors.h"
#include "gguf-like-format/tess/tess_file.h"

using namespace tessera;

namespace {

// False, with a line that says so, in a build that was configured with another checkpoint.
bool holds_own_model(const TessFile& file) {
  if (file.header().name == "tessera-tiny") return true;
  std::cout << "skipped: this build embeds " << file.header().name << "\n";
  return false;
}

}  // namespace

TEST_CASE("the embedded model is a verified file in aligned memory") {
  const std::span<const std::byte> bytes = embedded_model();
  REQUIRE(!bytes.empty());
  CHECK(reinterpret_cast<uintptr_t>(bytes.data()) % kTessAlignment == 0);
  const auto file = TessFile::from_memory(bytes, "embedded");
  CHECK(file->verify().empty());
  CHECK(file->header().quantization.scheme == "w4a8-g128");
  CHECK(file->header().quantization.head_scheme == "w8a8");
  const std::string& command = file->header().quantization.command;
  CHECK(command.find(TESSERA_SOURCE_DIR) == std::string::npos);
  CHECK(command.find(file->header().name) != std::string::npos);
}

TEST_CASE("the embedded model decodes to its checkpoint") {
  const auto file = TessFile::from_memory(embedded_model(), "embedded");
  if (!holds_own_model(*file)) return;
  const Checkpoint checkpoint = Checkpoint::open(std::string(TESSERA_SOURCE_DIR) + "/models/tessera-tiny");
  for (const ExpectedTensor& expected : expected_tensors(file->header().hyperparameters)) {
    CAPTURE(expected.name);
    const StoredTensor& stored = file->require(expected.name);
    const CheckpointTensor* source = checkpoint.find(expected.source.name);
    REQUIRE(source != nullptr);
    REQUIRE(stored.shape == source->shape);
    if (stored.shape.size() != 2) continue;
    std::vector<float> values(stored.columns());
    std::vector<double> decoded(stored.columns());
    double error = 0;
    double power = 0;
    for (size_t row = 0; row < stored.rows(); ++row) {
      read_floats(*source, row * stored.columns(), values);
      decode_row(stored.scheme, stored.rows(), stored.columns(), stored.bytes, row, decoded);
      for (size_t column = 0; column < values.size(); ++column) {
        const double value = values[column];
        error += (value - decoded[column]) * (value - decoded[column]);
        power += value * value;
      }
    }
    CHECK(std::sqrt(error / power) < (stored.scheme == Scheme::w8a8 ? 0.02 : 0.15));
  }
}

TEST_CASE("the embedded tokenizer equals the checkpoint's") {
  const auto file = TessFile::from_memory(embedded_model(), "embedded");
  if (!holds_own_model(*file)) return;
  const Tokenizer stored = Tokenizer::from_stored(file->header().tokenizer, file->tensors());
  const Tokenizer direct = Tokenizer::from_folder(std::string(TESSERA_SOURCE_DIR) + "/models/tessera-tiny");
  const std::string text = "<|user|>I'd like 2 tickets at 7:30 pm, please.<|end|>";
  CHECK(stored.encode(text, true) == direct.encode(text, true));
  CHECK(stored.decode(stored.encode(text, true), true) == text);
}
