// GGUF models of many formats whose codes are kept: every matrix is what the formats say, in the scheme that
// holds it, and every backend computes the same with all of these schemes in one file.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstring>
#include <map>
#include <random>

#include "engine/codec/matrix_codec.h"
#include "engine/quantize/plan/checkpoint_values.h"
#include "engine/quantize/plan/weight_plan.h"
#include "engine/quantize/quantize_model.h"
#include "gguf-like-format/tess/tess_file.h"
#include "tests/golden/golden_model.h"
#include "tests/unit/crafted_files.h"
#include "tests/unit/gguf_models.h"

using namespace tessera;
using namespace tessera::crafted;

namespace {

constexpr uint64_t kHidden = 256, kFfn = 512, kKv = 128, kVocabulary = 263;

// What one format becomes: the scheme, and whether its codes are kept.
struct Fate {
  const char* type;
  std::vector<size_t> halves;  // where f16 numbers of its blocks lie
  const char* scheme;
  bool kept;
};
const std::map<std::string, Fate> kFates = {
    {"F16", {"F16", {0}, "f16", true}},
    {"BF16", {"BF16", {}, "bf16", true}},
    {"Q8_0", {"Q8_0", {0}, "int8-g32", true}},
    {"Q4_0", {"Q4_0", {0}, "lut4-g32", true}},
    {"Q4_1", {"Q4_1", {0, 2}, "int4m-g32", true}},
    {"Q5_0", {"Q5_0", {0}, "int8-g32", true}},
    {"Q5_1", {"Q5_1", {0, 2}, "int8-g32", false}},
    {"Q2_K", {"Q2_K", {80, 82}, "int4k-g32", false}},
    {"Q3_K", {"Q3_K", {108}, "int4k-g32", false}},
    {"Q4_K", {"Q4_K", {0, 2}, "int4k-g32", true}},
    {"Q5_K", {"Q5_K", {0, 2}, "int8-g32", false}},
    {"Q6_K", {"Q6_K", {208}, "int8-g32", false}},
    {"IQ4_NL", {"IQ4_NL", {0}, "lut4-g32", true}},
    {"IQ4_XS", {"IQ4_XS", {0}, "lut4-g32", true}},
    {"MXFP4", {"MXFP4", {}, "lut4-g32", true}},
    {"TQ1_0", {"TQ1_0", {52}, "lut2-g256", true}},
    {"TQ2_0", {"TQ2_0", {64}, "lut2-g256", true}},
};

const GgufBlockFormat& format_named(const std::string& name) {
  for (uint32_t type = 0; type < 64; ++type) {
    const GgufBlockFormat* format = find_block_format(type);
    if (format != nullptr && format->name == name) return *format;
  }
  FAIL("no format " << name);
  std::abort();
}

// Random codes; levels of both signs that leave values between about 1/1000 and 1.
void add_random_blocks(GgufWriter& file, const std::string& name, const std::string& type, uint64_t columns,
                       uint64_t rows, std::mt19937_64& random) {
  const GgufBlockFormat& format = format_named(type);
  std::string data;
  for (uint64_t block = 0; block < rows * columns / format.values; ++block) {
    std::string bytes;
    for (size_t i = 0; i < format.bytes; ++i) bytes += static_cast<char>(random());
    if (type == "BF16") bytes = raw(f32_to_bf16(std::uniform_real_distribution<float>(-0.1f, 0.1f)(random)));
    if (type == "MXFP4") bytes[0] = static_cast<char>(119 + random() % 4);
    for (const size_t at : kFates.at(type).halves) {
      const float value = std::uniform_real_distribution<float>(0.0004f, 0.0012f)(random);
      bytes.replace(at, 2, raw(f32_to_f16(random() % 2 == 0 ? value : -value)));
    }
    data += bytes;
  }
  file.tensors.push_back({name, {columns, rows}, format.type, std::move(data), {}});
}

// Two layers; types of the layers' seven matrices, of the embedding, and of the head, if it has one.
GgufWriter model_of(const std::array<std::array<const char*, 7>, 2>& types, const std::string& embedding,
                    const std::string& head, std::mt19937_64& random) {
  GgufWriter file = small_model("llama", random());
  file.u32("llama.embedding_length", kHidden);
  file.u32("llama.feed_forward_length", kFfn);
  file.tensors.clear();
  add_random_blocks(file, "token_embd.weight", embedding, kHidden, kVocabulary, random);
  if (!head.empty()) add_random_blocks(file, "output.weight", head, kHidden, kVocabulary, random);
  add_random_tensor(file, "output_norm.weight", {kHidden}, random);
  for (size_t layer = 0; layer < 2; ++layer) {
    const auto name = [&](const char* part) { return fmt::format("blk.{}.{}.weight", layer, part); };
    add_random_tensor(file, name("attn_norm"), {kHidden}, random);
    add_random_tensor(file, name("ffn_norm"), {kHidden}, random);
    add_random_blocks(file, name("attn_q"), types[layer][0], kHidden, kHidden, random);
    add_random_blocks(file, name("attn_k"), types[layer][1], kHidden, kKv, random);
    add_random_blocks(file, name("attn_v"), types[layer][2], kHidden, kKv, random);
    add_random_blocks(file, name("attn_output"), types[layer][3], kHidden, kHidden, random);
    add_random_blocks(file, name("ffn_gate"), types[layer][4], kHidden, kFfn, random);
    add_random_blocks(file, name("ffn_up"), types[layer][5], kHidden, kFfn, random);
    add_random_blocks(file, name("ffn_down"), types[layer][6], kFfn, kHidden, random);
  }
  return file;
}

GgufWriter tied_model(std::mt19937_64& random) {
  return model_of({{{"Q4_0", "Q8_0", "Q6_K", "Q4_1", "Q4_K", "IQ4_NL", "Q5_0"},
                    {"MXFP4", "Q4_K", "Q5_K", "TQ2_0", "IQ4_XS", "Q3_K", "BF16"}}},
                  "Q8_0", "", random);
}

GgufWriter untied_model(std::mt19937_64& random) {
  return model_of({{{"Q4_1", "IQ4_NL", "Q8_0", "TQ1_0", "Q2_K", "Q5_1", "Q4_0"},
                    {"Q4_K", "Q4_0", "Q8_0", "F16", "Q8_0", "Q4_1", "Q4_K"}}},
                  "Q4_K", "Q6_K", random);
}

QuantizeOptions keeping(const Folder& folder, const GgufWriter& file) {
  write_file(folder / "model.gguf", file.file());
  QuantizeOptions options;
  options.source = folder / "model.gguf";
  options.target = folder / "model.tess";
  options.keep = Keep::where_quantized;
  options.kv_bits = 16;
  options.threads = 2;
  options.command = "kept model test";
  return options;
}

std::string suffixed(const std::string& scheme, bool int8) {
  return int8 && scheme.find("-g") != std::string::npos ? scheme + "-a8" : scheme;
}

}  // namespace

TEST_CASE("matrices keep codes and floats in the schemes that hold them") {
  std::mt19937_64 random(std::random_device{}());
  for (const bool tied : {true, false}) {
    for (const bool int8 : {false, true}) {
      CAPTURE(tied);
      CAPTURE(int8);
      const Folder folder;
      QuantizeOptions options = keeping(folder, tied ? tied_model(random) : untied_model(random));
      options.keep_for_int8 = int8;
      const std::vector<QuantizeSummary> summary = quantize_model(options);
      const auto file = TessFile::open(options.target, true);
      CHECK(file->verify().empty());
      CHECK(file->header().quantization.scheme == (int8 ? "keep-a8" : "keep"));
      CHECK(file->header().quantization.head_scheme == suffixed("int8-g32", int8));
      const auto source = open_checkpoint(options.source);
      std::map<std::string, size_t> tensors;  // by what the summary tells apart
      for (const PlannedWeight& weight :
           plan_weights(*source, source->header().hyperparameters, Scheme::f32, false)) {
        const std::string type(weight.source->type);
        const StoredTensor& stored = file->require(weight.expected.name);
        CAPTURE(stored.name);
        CAPTURE(type);
        ++tensors[fmt::format("{} {}", role_label(weight.expected.role), type)];
        std::vector<float> values(static_cast<size_t>(weight.elements()));
        read_finite(source->path(), weight, 0, values);
        if (stored.shape.size() == 1) {
          CHECK(stored.scheme == Scheme::f32);
          CHECK(std::memcmp(stored.bytes.data(), values.data(), stored.bytes.size()) == 0);
          continue;
        }
        const Fate& fate = kFates.at(type);
        // With int8 activations tables want 127 times the scale, which is exact in f16 only for powers of
        // two; int4 holds what has one zero point as it is.
        const char* exact = type == "Q4_0" ? "int4-g32" : type.substr(0, 2) == "TQ" ? "int4-g256" : nullptr;
        const bool to_int4 = int8 && exact != nullptr;
        CHECK(scheme_name(stored.scheme) == suffixed(to_int4 ? exact : fate.scheme, int8));
        // The products of IQ4_XS have 17 digits, and 127 times a scale has more than f16 holds.
        const bool rounds = type == "IQ4_XS" || (int8 && type == "IQ4_NL");
        const double bound = rounds ? 1.0 / 2048 : 0;
        double error = 0, power = 0;
        std::vector<double> decoded(stored.columns());
        for (size_t row = 0; row < stored.rows(); ++row) {
          decode_row(stored.scheme, stored.rows(), stored.columns(), stored.bytes, row, decoded);
          for (size_t i = 0; i < decoded.size(); ++i) {
            const float value = values[row * decoded.size() + i];
            const double difference = static_cast<double>(static_cast<float>(decoded[i])) - double{value};
            if (fate.kept) REQUIRE(std::abs(difference) <= bound * std::abs(double{value}) + 1e-9 * bound);
            error += difference * difference;
            power += double{value} * double{value};
          }
        }
        CHECK((rounds || !fate.kept) == (error > 0));
        CHECK(std::sqrt(error / power) <
              (std::string_view(fate.scheme).substr(0, 4) == "int8" ? 0.01 : 0.12));
      }
      CHECK(summary.size() == tensors.size());
      for (const QuantizeSummary& line : summary) {
        CAPTURE(line.kind);
        CAPTURE(line.source);
        CHECK(line.tensors == tensors[line.kind + " " + line.source]);
        CHECK(line.kept == (line.source == "F32" || kFates.at(line.source).kept));
        CHECK((line.kept && !line.rounds.any()) == (line.relative_error == 0));
      }
    }
  }
}

TEST_CASE("a rounded head, and a checkpoint without codes") {
  std::mt19937_64 random(std::random_device{}());
  const Folder folder;
  QuantizeOptions options = keeping(folder, tied_model(random));
  options.keep_head = false;
  quantize_model(options);
  CHECK(TessFile::open(options.target, true)->require("token_embedding").scheme == Scheme::w8a8);

  const Folder floats;
  options = keeping(floats, small_model("llama", 1));
  quantize_model(options);
  CHECK(TessFile::open(options.target, true)->header().quantization.scheme == "w4a8-g128");
  options.keep = Keep::everything;
  const std::vector<QuantizeSummary> summary = quantize_model(options);
  const auto file = TessFile::open(options.target, true);
  CHECK(file->header().quantization.scheme == "keep");
  for (const QuantizeSummary& line : summary)
    CHECK((line.kept && line.scheme == "f32" && line.source == "F32"));
}

TEST_CASE("matrices that read one input take it in one type") {
  std::mt19937_64 random(std::random_device{}());
  const Folder folder;
  const QuantizeOptions options =
      keeping(folder, model_of({{{"F16", "Q8_0", "BF16", "F16", "BF16", "Q4_K", "F16"},
                                 {"F16", "BF16", "F16", "Q4_1", "F16", "BF16", "Q8_0"}}},
                               "F16", "", random));
  quantize_model(options);
  const auto file = TessFile::open(options.target, true);
  const auto scheme = [&](const char* name) { return std::string(scheme_name(file->require(name).scheme)); };
  for (const char* converted : {"layers.0.q", "layers.0.v", "layers.0.gate"})
    CHECK(scheme(converted) == "int8-g32");
  CHECK(scheme("layers.0.k") == "int8-g32");
  CHECK(scheme("layers.0.up") == "int4k-g32");
  for (const char* same : {"layers.0.o", "layers.0.down", "layers.1.q", "layers.1.v", "layers.1.gate"})
    CHECK(scheme(same) == "f16");
  CHECK((scheme("layers.1.k") == "bf16" && scheme("layers.1.up") == "bf16"));
  CHECK_NOTHROW(build_graph(*file));
}

TEST_CASE("levels that are no numbers are refused, and nothing is left behind") {
  std::mt19937_64 random(std::random_device{}());
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_output.weight", "blk.0.ffn_gate.weight"}) {
    const Folder folder;
    GgufWriter broken = tied_model(random);
    broken.find_tensor(name)->data.replace(0, 2, raw(uint16_t{0x7c00}));
    const QuantizeOptions options = keeping(folder, broken);
    const std::string line = refusal([&] { quantize_model(options); });
    CHECK(contains(line, fmt::format("tensor \"{}\": expected finite values, found", name)));
    CHECK_FALSE(std::filesystem::exists(options.target));
  }
}

// Backends differ in the order of sums, after which an activation may fall to the other side of a rounding
// step: 2^-8 of it in bfloat16, 1/127 of the largest in int8. Were that so for all inputs of eight products
// one behind the other, logits would move by 8 / 256 or, with largest activations of four times their mean,
// 8 * 4 / 127.
TEST_CASE("backends agree on a file of many schemes") {
  std::mt19937_64 random(std::random_device{}());
  for (const bool int8 : {false, true}) {
    for (const bool tied : {true, false}) {
      const Folder folder;
      QuantizeOptions options = keeping(folder, tied ? tied_model(random) : untied_model(random));
      options.keep_for_int8 = int8;
      quantize_model(options);
      const Model model = Model::open(options.target, true);
      std::mt19937 generator(static_cast<uint32_t>(random()));
      const golden::Ids ids = golden::random_ids(generator, 23, kVocabulary);
      golden::Rows expected;
      for (const golden::Runner& runner : golden::all_runners()) {
        CAPTURE(runner.name());
        Session session(model, [&] {
          SessionOptions chosen = golden::options_for(runner);
          chosen.context = 256;
          return chosen;
        }());
        golden::Rows rows = golden::run_rows(session, session.create_sequence(), ids);
        const auto one = session.create_sequence();
        for (size_t i = 0; i < 5; ++i) {  // a token at a time: other kernels
          const golden::Rows row = golden::run_rows(session, one, std::span(ids).subspan(i, 1));
          rows.push_back(row[0]);
        }
        if (expected.empty()) expected = rows;
        CHECK(golden::relative_error(rows, expected) < (int8 ? 8.0 * 4 / 127 : 8.0 / 256));
        CHECK(golden::largest_magnitude(rows[0]) > 0);
      }
    }
  }
}
