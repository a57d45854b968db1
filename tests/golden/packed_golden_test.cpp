// Packed checkpoints of every kind against the values that the formats' own packages compute, which have to
// be the same bits (make_packed_golden.py), and their codes against these values.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint_source.h"
#include "engine/quantize/plan/kept_matrix.h"
#include "gguf-like-format/safetensors/safetensors.h"
#include "tests/unit/crafted_files.h"
#include "tests/unit/packed_formula.h"

using namespace tessera;
using namespace tessera::crafted;

namespace {

const std::filesystem::path kGolden = TESSERA_SOURCE_DIR "/tests/golden";

// A folder that is complete but for most of a model's tensors.
void write_checkpoint(const Folder& folder, const std::string& name, const nlohmann::json& test_case) {
  const std::filesystem::path base = kGolden / "models/llama-yarn-f32";
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy_file(base / file, folder / file);
  std::filesystem::copy_file(kGolden / "packed" / (name + ".safetensors"), folder / "model.safetensors");
  nlohmann::json config = nlohmann::json::parse(std::ifstream(base / "config.json"));
  const auto& settings = test_case["settings"];
  if (test_case["file"] == "config.json")
    config["quantization_config"] = settings;
  else
    write_file(folder / test_case["file"].get<std::string>(), settings.dump());
  write_file(folder / "config.json", config.dump());
}

// The values of a matrix by the formula of its packed format, in the order of the matrix.
std::vector<float> decoded(const PackedFormat& format, const PackedRows& rows, size_t columns) {
  const size_t groups = (columns + format.group - 1) / format.group;
  const size_t count = rows.codes.size() / columns;
  REQUIRE(rows.codes.size() == count * columns);
  REQUIRE(rows.scales.size() == count * groups);
  REQUIRE(rows.offsets.size() == (format.meaning == PackedMeaning::table ? 0 : rows.scales.size()));
  REQUIRE(std::all_of(rows.codes.begin(), rows.codes.end(),
                      [&](uint8_t code) { return code < 1u << format.bits; }));
  const std::vector<float> stored = packed_values(format, rows, columns);
  if (format.order.empty()) return stored;
  REQUIRE(format.order.size() == columns);
  std::vector<float> values(stored.size());
  for (size_t i = 0; i < stored.size(); ++i)
    values[i / columns * columns + format.order[i % columns]] = stored[i];
  return values;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y) || (x == 0 && y == 0);
  });
}

}  // namespace

TEST_CASE("packed matrices have the values of the packages that write them, and so have their codes") {
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(kGolden / "packed/cases.json"));
  const Checkpoint expected = Checkpoint::open(kGolden / "packed/expected.safetensors");
  std::random_device device;
  const uint32_t seed = device();
  CAPTURE(seed);
  std::mt19937 random(seed);
  size_t matrices = 0;
  for (const auto& item : golden["cases"].items()) {
    const std::string& name = item.key();
    CAPTURE(name);
    const Folder folder;
    write_checkpoint(folder, name, item.value());
    const auto source = open_checkpoint(folder.path());
    CHECK(source->tensors().size() == item.value()["matrices"].size());
    for (const auto& entry : item.value()["matrices"].items()) {
      CAPTURE(entry.key());
      const CheckpointTensor* truth = expected.find(name + ":" + entry.key());
      const SourceTensor* tensor = source->find(entry.key());
      REQUIRE(truth != nullptr);
      REQUIRE(tensor != nullptr);
      CHECK(tensor->shape == truth->shape);
      CHECK(tensor->type == entry.value()["type"].get<std::string>());
      CHECK(tensor->precision == Scheme::f32);
      std::vector<float> values(truth->elements());
      read_floats(*truth, 0, values);

      std::vector<float> found(values.size(), -1.0f);
      source->read(*tensor, 0, found);
      CHECK(same_bits(found, values));
      for (size_t round = 0; round < 20; ++round) {  // ranges that begin and end inside rows
        const size_t first = random() % values.size();
        std::vector<float> part(random() % (values.size() - first + 1), -1.0f);
        source->read(*tensor, first, part);
        CHECK(same_bits(part, std::span(values).subspan(first, part.size())));
      }
      std::vector<float> one(1);
      CHECK(
          contains(refusal([&] { source->read(*tensor, values.size(), one); }), "expected elements within"));

      const auto format = source->packed_format(*tensor);
      CHECK(format.has_value() == entry.value()["codes"].get<bool>());
      ++matrices;
      if (!format) {
        CHECK(contains(refusal([&] { source->read_packed(*tensor, 0, 1); }), "holds no codes"));
        continue;
      }
      const size_t rows = tensor->shape[0];
      const size_t columns = tensor->shape[1];
      CHECK(same_bits(decoded(*format, source->read_packed(*tensor, 0, rows), columns), values));
      const size_t first = random() % rows;
      const size_t some = random() % (rows - first) + 1;
      CHECK(same_bits(decoded(*format, source->read_packed(*tensor, first, some), columns),
                      std::span(values).subspan(first * columns, some * columns)));
      CHECK(contains(refusal([&] { source->read_packed(*tensor, rows, 1); }), "expected rows within"));
    }
  }
  CHECK(matrices == 48);
}

TEST_CASE(
    "matrices that keep their codes have the values of the packages, others are rounded to a scheme near") {
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(kGolden / "packed/cases.json"));
  const std::map<std::string, std::string> kept_in = {
      {"awq-gemm", "int4-g32"},
      {"awq-gemv", "int4-g32"},
      {"awq-side-file", "int4-g32"},
      {"bnb-fp4", "lut4-g32"},
      {"bnb-fp4-nested", "lut4-g64"},
      {"bnb-int8", "w8a8"},
      {"bnb-nf4", "lut4-g64"},
      {"bnb-nf4-bf16-storage", "lut4-g64"},
      {"bnb-nf4-nested", "lut4-g32"},
      {"ct-int8", "int8-g32"},
      {"ct-pack-3-asymmetric", "int4-g32"},
      {"ct-pack-4-act-order", "lut4-g32"},
      {"ct-pack-4-asymmetric", "int4-g32"},
      {"ct-pack-5", "w8a8"},
      {"gptq-4-act-order", "int4-g32"},
      {"gptq-dynamic", "int8-g32"},  // and groups of 16 in 4 bits, which no scheme has
      {"hqq-4", "int4-g32"},
  };
  std::map<std::string, std::string> found;
  for (const auto& item : golden["cases"].items()) {
    const std::string& name = item.key();
    CAPTURE(name);
    const Folder folder;
    write_checkpoint(folder, name, item.value());
    const auto source = open_checkpoint(folder.path());
    CHECK(has_quantized_tensors(*source));
    ModelFileOptions options;
    options.source = folder.path();
    options.threads = 1;
    for (const SourceTensor& tensor : source->tensors()) {
      CAPTURE(tensor.name);
      const auto format = source->packed_format(tensor);
      CHECK((tensor.code_bits > 0 && (!format || tensor.code_bits <= format->bits)));
      std::vector<PlannedWeight> plan(1);
      PlannedWeight& weight = plan[0];
      weight.expected.role = Role::q;
      weight.expected.name = "layers.0.q";
      weight.expected.shape = tensor.shape;
      weight.expected.source.name = tensor.name;
      weight.checkpoint = source.get();
      weight.source = &tensor;
      const std::vector<ColumnOrder> orders =
          keep_matrices(plan, source->header().hyperparameters, ActivationType::bf16, false, 1);
      const bool ordered = weight.kept && !weight.kept->format.order.empty();
      REQUIRE(orders.size() == (ordered ? 1 : 0));
      if (ordered) CHECK((orders[0].name == "layers.0.qkv_order" && orders[0].columns == format->order));
      std::vector<std::byte> bytes(static_cast<size_t>(stored_bytes(weight.scheme, tensor.shape).value()));
      const std::function<void(uint64_t, uint64_t)> unreported;
      Progress progress(unreported, weight.elements(), 0);
      const ErrorSums sums = weight.kept ? encode_kept(options, weight, bytes, progress)
                                         : encode_by_rounding(options, weight, {}, bytes, progress);
      const double error = std::sqrt(sums.error / sums.power);
      if (weight.kept) {
        found[name] = scheme_name(weight.scheme);
        const keep::Roundings& rounds = weight.kept->rounds;
        CHECK(rounds.any() == (name.substr(0, 5) == "bnb-n" || name.substr(0, 5) == "bnb-f"));
        // A bfloat16 table and f16 scales: at most 2^-8 and 2^-11 of each value.
        CHECK((rounds.any() ? error > 0 && error < 1.0 / 256 + 1.0 / 2048 + 1e-5 : error == 0));
      } else {
        CHECK(scheme_name(weight.scheme) == (tensor.code_bits > 4 ? "int8-g32" : "int4-g32"));
        // Half a step of 127 or of 15 is the most that a weight moves, against the largest of its group.
        CHECK(error > 0);
        CHECK(error < (tensor.code_bits > 4 ? 0.01 : 0.12));
      }
    }
  }
  CHECK(found == kept_in);
}

TEST_CASE("packed formats say how codes lie") {
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(kGolden / "packed/cases.json"));
  const auto format_of = [&](const std::string& name) {
    const Folder folder;
    const nlohmann::json& test_case = golden["cases"][name];
    write_checkpoint(folder, name, test_case);
    const auto source = open_checkpoint(folder.path());
    return *source->packed_format(*source->find(test_case["matrices"].begin().key()));
  };
  const PackedFormat four = format_of("gptq-4-symmetric");
  CHECK((four.meaning == PackedMeaning::zero_point && four.bits == 4 && four.group == 16 &&
         four.order.empty()));
  const PackedFormat ordered = format_of("gptq-4-act-order");
  CHECK((ordered.group == 32 && ordered.order.size() == 128));
  CHECK(format_of("gptq-8-row").group == 32);
  const PackedFormat normal = format_of("bnb-nf4");
  CHECK((normal.meaning == PackedMeaning::table && normal.group == 64 && normal.table[0] == -1.0f &&
         normal.table[7] == 0.0f && normal.table[15] == 1.0f));
  CHECK(format_of("bnb-nf4-nested").group == 32);  // rows of 32 in blocks of 64
  CHECK((format_of("bnb-int8").bits == 8 && format_of("ct-int8").bits == 8 &&
         format_of("ct-pack-5").bits == 5));
}

TEST_CASE("a matrix has another hash when any of its parts or settings is another") {
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(kGolden / "packed/cases.json"));
  nlohmann::json test_case = golden["cases"]["gptq-4"];
  const auto hash = [&] {
    const Folder folder;
    write_checkpoint(folder, "gptq-4", test_case);
    const auto source = open_checkpoint(folder.path());
    return source->hash(source->tensors()[0], 7);
  };
  const uint64_t before = hash();
  CHECK(hash() == before);
  test_case["settings"]["checkpoint_format"] = "gptq_v2";
  CHECK(hash() != before);
}
