// Models mixed of two files: every tensor comes from the right one, a mixed model computes what a file with
// the same tensors computes, and files that do not fit together are refused.
#include "engine/measure/layer_costs.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "engine/codec/matrix_codec.h"
#include "engine/measure/random_model.h"
#include "engine/session.h"
#include "gguf-like-format/tess/tess_writer.h"

using namespace tessera;

namespace {

Hyperparameters small_shape() {
  Hyperparameters h;
  h.family = "llama";
  h.vocabulary = 300;
  h.hidden = 64;
  h.layers = 2;
  h.query_heads = 4;
  h.kv_heads = 2;
  h.head_dim = 16;
  h.ffn = 96;
  h.context = 64;
  return h;
}

RandomModel random_model(Scheme scheme, uint64_t seed) {
  return RandomModel("small", small_shape(), scheme, 1, seed);
}

// A copy of the file in which a matrix's rows are changed.
TessImage changed(const Model& model, const std::string& name,
                  const std::function<void(std::vector<double>&)>& change) {
  std::vector<PlannedTensor> plan;
  for (const StoredTensor& tensor : model.file().tensors()) {
    plan.push_back({tensor.name, tensor.scheme, tensor.shape});
  }
  TessImage image("changed", model.header(), plan);
  for (size_t i = 0; i < plan.size(); ++i) {
    const StoredTensor& tensor = model.file().tensors()[i];
    if (tensor.name != name) {
      std::copy(tensor.bytes.begin(), tensor.bytes.end(), image.tensor(i).begin());
      continue;
    }
    std::vector<float> values;
    std::vector<double> row(tensor.columns());
    for (size_t r = 0; r < tensor.rows(); ++r) {
      decode_row(tensor.scheme, tensor.rows(), tensor.columns(), tensor.bytes, r, row);
      change(row);
      for (const double value : row) values.push_back(static_cast<float>(value));
    }
    encode_rows(tensor.scheme, tensor.rows(), tensor.columns(), 0, tensor.rows(), values, image.tensor(i));
  }
  image.finish();
  return image;
}

std::vector<float> logits_of(const Model& model) {
  SessionOptions options;
  options.threads = 1;
  options.kv_bits = 16;
  options.context = 32;
  options.max_outputs = 32;
  Session session(model, options);
  const std::vector<uint32_t> tokens = {1, 17, 299, 4, 4, 250, 77};
  const SequenceInput input{session.create_sequence(), tokens, LogitRows::all};
  const std::span<const float> logits = session.run({&input, 1});
  return {logits.begin(), logits.end()};
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("each part takes its own tensors and nothing else") {
  const RandomModel float_bytes = random_model(Scheme::bf16, 7);
  const RandomModel coded_bytes = random_model(Scheme::w4a8, 7);
  const Model reference = Model::from_memory(float_bytes.bytes());
  const Model quantized = Model::from_memory(coded_bytes.bytes());

  const std::vector<MixedPart> layers = mix_parts(quantized, reference, false);
  REQUIRE(layers.size() == 3);
  CHECK(layers[0].name == "layers.0");
  CHECK(layers[1].name == "layers.1");
  CHECK(layers[2].name == "embedding and head");
  CHECK(layers[1].scheme == "w4a8");
  CHECK(layers[2].scheme == "w8a8");
  const std::vector<MixedPart> groups = mix_parts(quantized, reference, true);
  REQUIRE(groups.size() == 9);
  CHECK(groups[0].name == "layers.0.qkv");
  CHECK(groups[7].name == "layers.1.down");

  std::vector<MixedPart> all = mix_parts(quantized, reference, true);
  for (MixedPart& part : mix_parts(quantized, reference, false)) all.push_back(std::move(part));
  for (const MixedPart& part : all) {
    uint64_t bytes = 0;
    for (const Weight& weight : part.model.graph().weights) {
      const std::string& tensor = weight.name;
      const bool in_layer = tensor.compare(0, part.name.size() + 1, part.name + ".") == 0;
      bool inside = in_layer;
      if (part.name == "embedding and head") inside = tensor.compare(0, 7, "layers.") != 0;
      const size_t dot = part.name.rfind('.');
      if (dot != std::string::npos && dot > 7) {
        const std::string layer = part.name.substr(0, dot + 1);
        const std::string group = part.name.substr(dot + 1);
        const std::vector<std::string> names =
            group == "qkv"       ? std::vector<std::string>{"attention_norm", "q", "k", "v"}
            : group == "gate_up" ? std::vector<std::string>{"ffn_norm", "gate", "up"}
                                 : std::vector<std::string>{group};
        inside = std::any_of(names.begin(), names.end(),
                             [&](const std::string& name) { return tensor == layer + name; });
      }
      const Model& source = inside ? quantized : reference;
      CHECK_MESSAGE(
          part.model.file().require(tensor).bytes.data() == source.file().require(tensor).bytes.data(),
          part.name << ": " << tensor);
      if (inside) bytes += source.file().require(tensor).bytes.size();
    }
    CHECK(part.weight_bytes == bytes);
    CHECK(part.model.file().verify().empty());
    CHECK(part.bits_per_weight > 4);
    CHECK(part.bits_per_weight < 9);
  }
}

TEST_CASE("a mixed model computes what a file with these tensors computes") {
  const RandomModel float_bytes = random_model(Scheme::bf16, 11);
  const RandomModel coded_bytes = random_model(Scheme::w4a8_g128, 11);
  const Model reference = Model::from_memory(float_bytes.bytes());
  const Model quantized = Model::from_memory(coded_bytes.bytes());
  const std::vector<float> of_reference = logits_of(reference);
  for (const MixedPart& part : mix_parts(quantized, reference, true)) {
    std::vector<PlannedTensor> plan;
    const std::span<const StoredTensor> tensors = part.model.file().tensors();
    for (const StoredTensor& tensor : tensors) plan.push_back({tensor.name, tensor.scheme, tensor.shape});
    TessImage image("copy", part.model.header(), plan);
    for (size_t i = 0; i < plan.size(); ++i) {
      std::copy(tensors[i].bytes.begin(), tensors[i].bytes.end(), image.tensor(i).begin());
    }
    image.finish();
    const std::vector<float> mixed = logits_of(part.model);
    CHECK_MESSAGE(mixed == logits_of(Model::from_memory(image.bytes())), part.name);
    CHECK_MESSAGE(mixed != of_reference, part.name);
  }
  for (const MixedPart& part : mix_parts(reference, reference, true)) {
    CHECK_MESSAGE(logits_of(part.model) == of_reference, part.name);
  }
}

TEST_CASE("files that do not belong together are refused") {
  const RandomModel float_bytes = random_model(Scheme::bf16, 3);
  const Model reference = Model::from_memory(float_bytes.bytes());
  const RandomModel other_bytes = random_model(Scheme::w8a8, 4);
  const Model other = Model::from_memory(other_bytes.bytes());
  CHECK(refusal([&] { mix_parts(other, reference, false); }).find("another model, or a rotated") !=
        std::string::npos);

  Hyperparameters shape = small_shape();
  shape.ffn = 128;
  const RandomModel wide_bytes("wide", shape, Scheme::w8a8, 1, 3);
  const Model wide = Model::from_memory(wide_bytes.bytes());
  CHECK(refusal([&] { mix_parts(wide, reference, false); }).find("their shapes differ") != std::string::npos);
  CHECK(refusal([&] {
          TessFile::mixed(reference.file(), wide.file(),
                          [](std::string_view name) { return name == "layers.0.up"; });
        }).find("tensor layers.0.up: shape: expected [96, 64]") != std::string::npos);

  const auto reversed = [](std::vector<double>& row) { std::reverse(row.begin(), row.end()); };
  const auto smoothed = [](std::vector<double>& row) {
    for (size_t i = 0; i < row.size(); ++i) row[i] *= i % 3 == 0 ? 0.8 : 1.1;
  };
  for (const char* name : {"layers.1.o", "layers.0.down"}) {
    for (const std::function<void(std::vector<double>&)>& change :
         {std::function<void(std::vector<double>&)>(reversed),
          std::function<void(std::vector<double>&)>(smoothed)}) {
      const TessImage image = changed(reference, name, change);
      const Model transformed = Model::from_memory(image.bytes());
      const std::string line = refusal([&] { mix_parts(transformed, reference, true); });
      CHECK_MESSAGE(line.find(fmt::format("--matrices: {} was rotated, reordered or smoothed", name)) == 0,
                    line);
      CHECK(line.find('\n') == std::string::npos);
      CHECK(mix_parts(transformed, reference, false).size() == 3);  // whole layers stay mixable
    }
  }
  const TessImage image = changed(reference, "token_embedding", reversed);
  const Model rotated = Model::from_memory(image.bytes());
  CHECK(refusal([&] { mix_parts(rotated, reference, false); }).find("rotated") != std::string::npos);
}
