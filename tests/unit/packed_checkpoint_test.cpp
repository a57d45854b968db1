// Packed checkpoints that are broken in one place: each is refused with a line that names the fault, and none
// of them crashes. They start from the valid ones of the golden test.
#include <doctest/doctest.h>

#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint_source.h"
#include "engine/checkpoint/module_patterns.h"
#include "gguf-like-format/safetensors/safetensors.h"
#include "tests/unit/crafted_files.h"

using namespace tessera;
using namespace tessera::crafted;
using nlohmann::json;

namespace {

const std::filesystem::path kGolden = TESSERA_SOURCE_DIR "/tests/golden";
const std::string kLayer = "model.layers.0.";
const std::string kKeys = kLayer + "self_attn.k_proj";
const std::string kDown = kLayer + "mlp.down_proj";

struct Tensor {
  std::string type;
  std::vector<uint64_t> shape;
  std::string bytes;
};

// A case of the golden data in pieces that can be changed.
struct Packed {
  json settings;
  std::string settings_file;
  std::map<std::string, Tensor> tensors;

  Tensor& at(const std::string& name) {
    REQUIRE(tensors.count(name) == 1);
    return tensors[name];
  }
};

Packed load(const std::string& name) {
  static const json golden = json::parse(std::ifstream(kGolden / "packed/cases.json"));
  Packed packed{golden["cases"][name]["settings"], golden["cases"][name]["file"], {}};
  const Checkpoint checkpoint = Checkpoint::open(kGolden / "packed" / (name + ".safetensors"));
  for (const CheckpointTensor& tensor : checkpoint.tensors())
    packed.tensors[tensor.name] = {
        std::string(type_name(tensor.type)), tensor.shape,
        std::string(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size())};
  return packed;
}

std::string safetensors(const std::map<std::string, Tensor>& tensors) {
  json header = json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.type},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text + data;
}

void write_checkpoint(const Folder& folder, const Packed& packed) {
  const std::filesystem::path base = kGolden / "models/llama-yarn-f32";
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy_file(base / file, folder / file);
  json config = json::parse(std::ifstream(base / "config.json"));
  if (packed.settings_file == "config.json")
    config["quantization_config"] = packed.settings;
  else if (!packed.settings_file.empty())
    write_file(folder / packed.settings_file, packed.settings.dump());
  write_file(folder / "config.json", config.dump());
  write_file(folder / "model.safetensors", safetensors(packed.tensors));
}

// Opens a checkpoint and reads everything in it, also as codes.
void read_all(const std::string& folder) {
  const auto source = open_checkpoint(folder);
  for (const SourceTensor& tensor : source->tensors()) {
    if (!tensor.precision) continue;
    std::vector<float> values(tensor.elements());
    source->read(tensor, 0, values);
    const auto format = source->packed_format(tensor);
    if (!format) continue;
    const PackedRows rows = source->read_packed(tensor, 0, tensor.shape[0]);
    for (const uint8_t code : rows.codes) REQUIRE(code < 1u << format->bits);
  }
}

using Change = std::function<void(Packed&)>;

std::string fault(const std::string& name, const Change& change) {
  Packed packed = load(name);
  change(packed);
  const Folder folder;
  write_checkpoint(folder, packed);
  const std::string line = refusal([&] { read_all(folder.path()); });
  if (!line.empty()) CHECK(well_formed(line, folder.path()));
  return line;
}

Change set(const std::string& field, const json& value) {
  return [=](Packed& packed) { packed.settings[field] = value; };
}
Change set_in_group(const std::string& field, const json& value) {
  return [=](Packed& packed) { packed.settings["config_groups"]["group_0"]["weights"][field] = value; };
}
Change remove(const std::string& tensor) {
  return [=](Packed& packed) {
    packed.at(tensor);
    packed.tensors.erase(tensor);
  };
}
Change retype(const std::string& tensor, const std::string& type) {
  return [=](Packed& packed) { packed.at(tensor).type = type; };
}
// Other sizes of the same bytes.
Change reshape(const std::string& tensor, const std::vector<uint64_t>& shape) {
  return [=](Packed& packed) { packed.at(tensor).shape = shape; };
}
// A tensor that is shorter or longer along its first dimension.
Change cut(const std::string& tensor, uint64_t first_dimension) {
  return [=](Packed& packed) {
    Tensor& changed = packed.at(tensor);
    changed.bytes.resize(changed.bytes.size() / changed.shape[0] * first_dimension, '\1');
    changed.shape[0] = first_dimension;
  };
}
template <typename T>
Change poke(const std::string& tensor, size_t element, T value) {
  return
      [=](Packed& packed) { std::memcpy(&packed.at(tensor).bytes[element * sizeof(T)], &value, sizeof(T)); };
}
Change state(const std::string& field, const json& value, const std::string& kind = "nf4",
             const std::string& layer = kDown) {
  return [=](Packed& packed) {
    Tensor& tensor = packed.at(layer + ".weight.quant_state.bitsandbytes__" + kind);
    json changed = json::parse(tensor.bytes);
    changed[field] = value;
    if (value.is_null()) changed.erase(field);
    tensor.bytes = changed.dump();
    tensor.shape = {tensor.bytes.size()};
  };
}

struct Hostile {
  std::string name;  // of the valid case
  Change change;
  std::string line;  // what its refusal contains; empty where it is fine
};

constexpr uint16_t kHalfNan = 0x7e00;
constexpr uint16_t kHalfInfinity = 0x7c00;

void check_all(const std::vector<Hostile>& all) {
  for (const Hostile& each : all) {
    CAPTURE(each.name);
    CAPTURE(each.line);
    const std::string line = fault(each.name, each.change);
    CAPTURE(line);
    CHECK(each.line.empty() == line.empty());
    CHECK(contains(line, each.line));
  }
}

}  // namespace

TEST_CASE("settings that say nothing or something unknown are refused") {
  check_all({
      {"gptq-4", set("quant_method", "quip"),
       "quantization_config.quant_method: expected one of gptq, awq, bitsandbytes, compressed-tensors, fp8, "
       "hqq, "
       "found \"quip\""},
      {"gptq-4", [](Packed& p) { p.settings.erase("quant_method"); }, "quant_method: expected one of gptq"},
      {"gptq-4", set("quant_method", 4), "quant_method: expected a string"},
      {"gptq-4", [](Packed& p) { p.settings = json::array(); },
       "quantization_config: expected a JSON object"},
      {"gptq-4", [](Packed& p) { p.settings_file.clear(); },
       kKeys + ".qweight\": expected quantization_config in config.json to say how it is packed, found none"},
      {"gptq-4",
       [](Packed& p) {
         p.tensors = {{"x.weight", {"F32", {1}, "1234"}}};
       },
       "expected packed matrices, as its settings of quantization say, found none"},
      {"gptq-4",
       [](Packed& p) {
         p.tensors[kKeys + ".weight"] = {"F32", {1}, "1234"};
       },
       "expected either this or \"" + kKeys + ".qweight\", found both"},
      {"gptq-side-file", set("bits", 16), "quantize_config.json: bits: expected one of 2, 3, 4, 8, found 16"},
  });
}

TEST_CASE("broken GPTQ checkpoints are refused") {
  check_all({
      {"gptq-4", set("bits", 5), "quantization_config.bits: expected one of 2, 3, 4, 8, found 5"},
      {"gptq-4", set("group_size", 0), "group_size: expected -1 or an integer from 1"},
      {"gptq-4", set("group_size", -2), "group_size: expected -1 or an integer"},
      {"gptq-4", set("group_size", "16"), "group_size: expected -1 or an integer"},
      {"gptq-4", set("checkpoint_format", "marlin"),
       "expected gptq or gptq_v2 (no other layout is supported), found \"marlin\""},
      {"gptq-4", set("checkpoint_format", "bitblas"), "found \"bitblas\""},
      {"gptq-4", set("format", "gptq_p"), "found \"gptq_p\""},
      {"gptq-4", set("is_marlin_format", true), "found \"marlin\""},
      {"gptq-4", set("pack_dtype", "int64"), "pack_dtype: expected int32, found \"int64\""},
      {"gptq-4", set("rotation", "hadamard"),
       "rotation: expected none (it is not supported), found \"hadamard\""},
      {"gptq-4", set("sym", "yes"), "sym: expected true or false"},
      {"gptq-4", set("dynamic", {{"+:(", {{"bits", 8}}}}),
       "dynamic: expected a regular expression, found \"(\""},
      {"gptq-4", set("dynamic", {{"-:.*k_proj", json::object()}}),
       ".qweight\": expected no codes, as quantization_config.dynamic says, found some"},
      {"gptq-4", set("dynamic", {{"a.*|.*k_proj", {{"bits", 8}}}, {".*proj", {{"bits", 2}}}}),
       "expected rules of quantization_config.dynamic that agree on it, found two that differ"},
      {"gptq-4", set("dynamic", {{".*proj", {{"format", "gptq_v2"}}}}),
       "format: expected none (one format for all layers)"},
      {"gptq-4", set("dynamic", {{"(.|..|...)+[^a-z_.0-9]", {{"bits", 4}}}}), "gave up on"},
      {"gptq-4", retype(kKeys + ".qweight", "F32"), ".qweight\": expected type I32, found F32"},
      {"gptq-4", reshape(kKeys + ".qweight", {4, 8, 4}), ".qweight\": expected two dimensions from 1"},
      {"gptq-4", cut(kKeys + ".qweight", 3),
       ".qweight\": expected 4 words of codes of 4 bits for the 32 columns of"},
      {"gptq-4", remove(kKeys + ".scales"),
       ".scales\": expected it beside \"" + kKeys + ".qweight\", found no such tensor"},
      {"gptq-4", remove(kKeys + ".qzeros"), ".qzeros\": expected it beside"},
      {"gptq-4", cut(kKeys + ".scales", 1), ".scales\": expected shape [2, 32], found [1, 32]"},
      {"gptq-4", cut(kKeys + ".qzeros", 3), ".qzeros\": expected shape [2, 4], found [3, 4]"},
      {"gptq-4", set("group_size", 32), ".scales\": expected shape [1, 32], found [2, 32]"},
      {"gptq-4", retype(kKeys + ".scales", "I32"), "expected"},
      {"gptq-4", poke(kKeys + ".scales", 33, kHalfNan),
       ".scales\": expected finite values, found nan at [33]"},
      {"gptq-4", poke(kKeys + ".scales", 1, kHalfInfinity),
       ".scales\": expected finite values, found inf at [1]"},
      {"gptq-4", poke(kKeys + ".g_idx", 5, int32_t{2}),
       ".g_idx\": expected groups from 0 to 1, found 2 at [5]"},
      {"gptq-4", poke(kKeys + ".g_idx", 31, int32_t{-1}),
       ".g_idx\": expected groups from 0 to 1, found -1 at [31]"},
      {"gptq-4", cut(kKeys + ".g_idx", 16), ".qweight\": expected 2 words"},
      {"gptq-4",
       [](Packed& p) {
         p.at(kKeys + ".g_idx") = {"I32", {0}, ""};
       },
       ".qweight\": expected 0 words"},
      {"gptq-3",
       [](Packed& p) {
         p.tensors.erase(kKeys + ".g_idx");
         cut(kKeys + ".qweight", 4)(p);
       },
       ".qweight\": expected whole codes of 3 bits, found 4 words"},
  });
}

TEST_CASE("broken AWQ checkpoints are refused") {
  check_all({
      {"awq-gemm", set("bits", 8), "bits: expected one of 4, found 8"},
      {"awq-gemm", set("version", "gemv_fast"),
       "version: expected gemm or gemv (no other layout is supported), found \"gemv_fast\""},
      {"awq-gemm", set("version", "llm-awq"), "found \"llm-awq\""},
      {"awq-gemm", set("version", "marlin"), "found \"marlin\""},
      {"awq-gemm", set("zero_point", false), "zero_point: expected true"},
      {"awq-gemm", set("modules_to_not_convert", {"mlp"}), ""},
      {"awq-gemm", set("modules_to_not_convert", {"down_proj"}),
       ".qweight\": expected no codes, as modules_to_not_convert names it"},
      {"awq-gemm", set("modules_to_not_convert", {"model.layers.0"}), "modules_to_not_convert names it"},
      {"awq-gemm", set("modules_to_not_convert", {1}), "modules_to_not_convert: expected strings"},
      {"awq-gemm", set("modules_to_not_convert", "lm_head"), "modules_to_not_convert: expected an array"},
      {"awq-gemm", set("group_size", 48), ".qweight\": expected a multiple of 48 columns, found 128"},
      {"awq-gemm", set("group_size", 64), ".qzeros\": expected shape [2, 4], found [4, 4]"},
      {"awq-gemm", set("version", "gemv"), ".qzeros\": expected shape [128, 4], found [4, 4]"},
      {"awq-gemm", remove(kDown + ".qzeros"), ".qzeros\": expected it beside"},
      {"awq-gemm", retype(kDown + ".qzeros", "F32"), ".qzeros\": expected type I32, found F32"},
      {"awq-gemm", poke(kDown + ".scales", 0, kHalfNan), ".scales\": expected finite values"},
      {"awq-gemv", set("group_size", 16), "group_size: expected 32, 64, or at least 128 for gemv, found 16"},
      {"awq-gemv", reshape(kDown + ".qzeros", {16, 8}), ".qzeros\": expected shape [32, 4], found [16, 8]"},
      {"awq-gemv", reshape(kDown + ".scales", {16, 64}),
       ".scales\": expected shape [32, 32], found [16, 64]"},
      {"awq-side-file", set("w_bit", 3), "quant_config.json: w_bit: expected one of 4, found 3"},
  });
}

TEST_CASE("broken bitsandbytes checkpoints are refused") {
  const std::string weight = kDown + ".weight";
  check_all({
      {"bnb-nf4", set("load_in_4bit", false), "load_in_4bit: expected true, or load_in_8bit, found neither"},
      {"bnb-nf4", remove(weight + ".absmax"), ".weight.absmax\": expected it beside"},
      {"bnb-nf4", remove(weight + ".quant_map"), ".quant_map\": expected it beside"},
      {"bnb-nf4", remove(weight + ".quant_state.bitsandbytes__nf4"), "expected packed matrices"},
      {"bnb-nf4", cut(weight, 2047), ".weight\": expected 2048 bytes for shape [32, 128], found 2047"},
      {"bnb-nf4", cut(weight + ".absmax", 63), ".absmax\": expected 64 values, found 63"},
      {"bnb-nf4", cut(weight + ".quant_map", 15), ".quant_map\": expected 16 values, found 15"},
      {"bnb-nf4", poke(weight + ".quant_map", 3, std::nanf("")), ".quant_map\": expected finite values"},
      {"bnb-nf4", poke(weight + ".absmax", 3, HUGE_VALF),
       ".absmax\": expected finite values, found inf at [3]"},
      {"bnb-nf4", retype(weight + ".absmax", "I32"), ".absmax\": expected type F32, found I32"},
      {"bnb-nf4", state("quant_type", "fp4"), "quant_type: expected nf4, found \"fp4\""},
      {"bnb-nf4", state("blocksize", 0), "blocksize: expected an integer from 2"},
      {"bnb-nf4", state("blocksize", nullptr), "blocksize: missing"},
      {"bnb-nf4", state("blocksize", 128), ".absmax\": expected 32 values, found 64"},
      {"bnb-nf4", state("shape", {32}), "shape: expected two sizes, found 1"},
      {"bnb-nf4", state("shape", {64, 128}),
       ".weight\": expected 4096 bytes for shape [64, 128], found 2048"},
      {"bnb-nf4", state("shape", {0, 128}), "shape[0]: expected an integer from 1"},
      {"bnb-nf4", state("shape", {2147483647, 2147483647}), "found 2048"},
      {"bnb-nf4", [=](Packed& p) { p.at(weight + ".quant_state.bitsandbytes__nf4").bytes[0] = '['; },
       "JSON: malformed"},
      {"bnb-fp4-nested", state("nested_blocksize", 16, "fp4"),
       ".nested_absmax\": expected 4 values, found 1"},
      {"bnb-fp4-nested", state("nested_offset", "0", "fp4"), "nested_offset: expected a number"},
      {"bnb-fp4-nested", state("nested_offset", 1e300, "fp4"), "nested_offset: expected a number"},
      {"bnb-fp4-nested", state("nested_dtype", "float16", "fp4"), "nested_dtype: expected float32"},
      {"bnb-fp4-nested", remove(weight + ".nested_absmax"), ".absmax\": expected type F32, found U8"},
      {"bnb-fp4-nested", remove(weight + ".nested_quant_map"), ".nested_quant_map\": expected it beside"},
      {"bnb-fp4-nested", poke(weight + ".nested_absmax", 0, 3e38f), ""},
      {"bnb-int8", cut(kKeys + ".SCB", 31), ".SCB\": expected 32 values, found 31"},
      {"bnb-int8", retype(kKeys + ".weight", "U8"), ".weight\": expected type I8, found U8"},
      {"bnb-int8", poke(kKeys + ".weight_format", 0, uint8_t{1}),
       ".weight_format\": expected 0 (rows; tiles are not supported), found 1"},
      {"bnb-int8", remove(kKeys + ".weight"), ".weight\": expected it beside \"" + kKeys + ".SCB\""},
      {"bnb-int8", poke(kKeys + ".SCB", 7, -HUGE_VALF), ".SCB\": expected finite values, found -inf at [7]"},
  });
}

TEST_CASE("broken compressed-tensors checkpoints are refused") {
  check_all({
      {"ct-pack-4", set("format", "nvfp4-pack-quantized"),
       "format: expected one of pack-quantized, int-quantized, float-quantized, naive-quantized, found "
       "\"nvfp4-pack-quantized\""},
      {"ct-pack-4", set("format", "marlin-24"), "found \"marlin-24\""},
      {"ct-pack-4", set("format", "dense"), "found \"dense\""},
      {"ct-pack-4", set("format", "mixed-precision"),
       "naive-quantized of its own, found \"mixed-precision\""},
      {"ct-pack-4", set("config_groups", json::object()),
       "config_groups: expected 1 to 1024 groups, found 0"},
      {"ct-pack-4", set("config_groups", {{"W4A16", {"Linear"}}}),
       "config_groups.W4A16: expected a JSON object"},
      {"ct-pack-4", set("sparsity_config", {{"format", "sparse-24-bitmask"}}),
       "sparsity_config.format: expected dense (sparse weights are not supported)"},
      {"ct-pack-4", set("transform_config", {{"config_groups", {{"R1", json::object()}}}}),
       "transform_config.config_groups: expected none (transforms are not supported)"},
      {"ct-pack-4", set("ignore", {"re:.*k_proj"}),
       ".weight_scale\": expected no packed weight, as ignore names its layer, found one"},
      {"ct-pack-4", set("ignore", {kKeys}), "as ignore names its layer"},
      {"ct-pack-4", set("ignore", {"re:["}), "ignore: expected a regular expression, found \"[\""},
      {"ct-pack-4", [](Packed& p) { p.settings["config_groups"]["group_0"]["targets"] = {"re:.*q_proj"}; },
       "expected a group of config_groups that has its layer as a target, found none"},
      {"ct-pack-4", set_in_group("num_bits", 9), "num_bits: expected one of 1, 2, 3, 4, 5, 6, 7, 8, found 9"},
      {"ct-pack-4", set_in_group("type", "float"),
       "type: expected a type of numbers that pack-quantized holds, found \"float\""},
      {"ct-pack-4", set_in_group("strategy", "token"), "strategy: expected tensor, channel, group or block"},
      {"ct-pack-4", set_in_group("strategy", "block"), "strategy: expected no blocks in packed integers"},
      {"ct-pack-4", set_in_group("group_size", -1), "group_size: expected a positive number for groups"},
      {"ct-pack-4", set_in_group("group_size", 24),
       ".weight_packed\": expected a multiple of 24 columns, found 32"},
      {"ct-pack-4", set_in_group("group_size", 32), ".weight_scale\": expected shape [32, 1], found [32, 2]"},
      {"ct-pack-4", set_in_group("num_bits", 5),
       ".weight_packed\": expected 5 words for 32 codes of 5 bits, found 4"},
      {"ct-pack-4", set_in_group("symmetric", false), ".weight_zero_point\": expected it beside"},
      {"ct-pack-4", remove(kKeys + ".weight_shape"), ".weight_shape\": expected it beside"},
      {"ct-pack-4", remove(kKeys + ".weight_scale"),
       ".weight_scale\": expected it beside \"" + kKeys + ".weight_packed\""},
      {"ct-pack-4", remove(kKeys + ".weight_packed"), ".weight_packed\": expected it beside"},
      {"ct-pack-4", poke(kKeys + ".weight_shape", 0, int64_t{16}),
       ".weight_shape\": expected the 32 rows of"},
      {"ct-pack-4", poke(kKeys + ".weight_shape", 1, int64_t{-32}),
       ".weight_shape\": expected two sizes from 1"},
      {"ct-pack-4", poke(kKeys + ".weight_shape", 1, int64_t{1} << 40),
       ".weight_shape\": expected two sizes from 1"},
      {"ct-pack-4", poke(kKeys + ".weight_shape", 1, int64_t{64}),
       ".weight_scale\": expected shape [32, 4], found [32, 2]"},
      {"ct-pack-4", reshape(kKeys + ".weight_shape", {1, 2}),
       ".weight_shape\": expected shape [2], found [1, 2]"},
      {"ct-pack-4", poke(kKeys + ".weight_scale", 9, uint16_t{0x7fc0}),
       ".weight_scale\": expected finite values, found nan at [9]"},
      {"ct-pack-4-asymmetric", cut(kDown + ".weight_zero_point", 3),
       ".weight_zero_point\": expected shape [4, 4], found [3, 4]"},
      {"ct-pack-4-asymmetric", reshape(kDown + ".weight_zero_point", {4, 2, 2}),
       ".weight_zero_point\": expected two dimensions"},
      {"ct-pack-4-act-order", poke(kDown + ".weight_g_idx", 1, int32_t{4}),
       ".weight_g_idx\": expected groups from 0 to 3, found 4 at [1]"},
      {"ct-pack-4-act-order", poke(kDown + ".weight_g_idx", 1, int32_t{-1}),
       ".weight_g_idx\": expected a group for every column or for none, found 1 without"},
      {"ct-pack-4-act-order", cut(kDown + ".weight_g_idx", 100),
       ".weight_g_idx\": expected shape [128], found [100]"},
      {"ct-int8", retype(kKeys + ".weight", "U8"), ".weight\": expected type I8, found U8"},
      {"ct-int8", cut(kKeys + ".weight_scale", 16), ".weight_scale\": expected shape [32, 1], found [16, 1]"},
      {"ct-int8-asymmetric", cut(kKeys + ".weight_zero_point", 16),
       ".weight_zero_point\": expected 64 values, one for each scale, found 32"},
      {"ct-int8-block", set_in_group("block_structure", {24}), "block_structure: expected two sizes"},
      {"ct-int8-block", set_in_group("block_structure", "24by40"), "block_structure: expected two sizes"},
      {"ct-int8-block", set_in_group("block_structure", {0, 40}),
       "block_structure[0]: expected an integer from 1"},
      {"ct-fp8-block", set_in_group("block_structure", {8, 40}),
       ".weight_scale\": expected shape [4, 4], found [2, 4]"},
      {"ct-fp8-tensor", set_in_group("symmetric", false), "symmetric: expected true for floats"},
      {"ct-fp8-tensor", set_in_group("num_bits", 4), "num_bits: expected one of 8, found 4"},
      {"ct-fp8-tensor", retype(kKeys + ".weight", "I8"), ".weight\": expected type F8_E4M3, found I8"},
      {"ct-fp8-channel", cut(kKeys + ".weight_scale", 31),
       ".weight_scale\": expected shape [32, 1], found [31, 1]"},
  });
}

TEST_CASE("broken fp8 checkpoints are refused") {
  check_all({
      {"fp8-block", set("fmt", "e5m2"), "fmt: expected e4m3, found \"e5m2\""},
      {"fp8-block", set("weight_block_size", {24}), "weight_block_size: expected two sizes, found 1"},
      {"fp8-block", set("weight_block_size", {0, 40}), "weight_block_size[0]: expected an integer from 1"},
      {"fp8-block", set("weight_block_size", {16, 16}),
       ".weight_scale_inv\": expected shape [2, 8], found [2, 4]"},
      {"fp8-block", set("weight_block_size", nullptr),
       ".weight_scale_inv\": expected one scale, as there is no weight_block_size, found 8"},
      {"fp8-block", retype(kDown + ".weight", "U8"), ".weight\": expected type F8_E4M3, found U8"},
      {"fp8-block", remove(kDown + ".weight"), ".weight\": expected it beside"},
      {"fp8-block", set("modules_to_not_convert", {"down_proj"}),
       "expected no scales, as modules_to_not_convert names it"},
      {"fp8-block", poke(kDown + ".weight_scale_inv", 0, HUGE_VALF),
       ".weight_scale_inv\": expected finite values"},
      {"fp8-tensor",
       [](Packed& p) { p.tensors[kKeys + ".weight_scale_inv"] = p.at(kKeys + ".weight_scale"); },
       "expected one way to read \"" + kKeys + ".weight\", found two"},
  });
}

TEST_CASE("broken HQQ checkpoints are refused") {
  check_all({
      {"hqq-4", set("quant_config", nullptr), "quant_config: missing"},
      {"hqq-4", set("skip_modules", {"mlp.down_proj"}),
       ".W_q\": expected no codes, as skip_modules names its layer"},
      {"hqq-4", remove(kDown + ".zero"), ".zero\": expected it beside"},
      {"hqq-4", remove(kDown + ".shape"), ".shape\": expected it beside"},
      {"hqq-4", remove(kDown + ".axis"), ".axis\": expected it beside"},
      {"hqq-4", [](Packed& p) { p.tensors[kDown + ".zero_q"] = p.at(kDown + ".W_q"); },
       ".zero_q\": expected levels in floats (packed levels are not supported)"},
      {"hqq-4", poke(kDown + ".axis", 0, int32_t{2}), ".axis\": expected 0 or 1, found 2"},
      {"hqq-4", poke(kDown + ".axis", 0, int32_t{-1}), ".axis\": expected a value of at least 0, found -1"},
      {"hqq-4", poke(kDown + ".nbits", 0, int32_t{7}), ".nbits\": expected 1, 2, 3, 4, 5, 6 or 8, found 7"},
      {"hqq-4", poke(kDown + ".nbits", 0, int32_t{2}),
       ".packing\": expected a packing of 2 bits, found \"4bit_u8\""},
      {"hqq-4", poke(kDown + ".packing", 0, uint8_t{'x'}),
       ".packing\": expected a packing of 4 bits, found \"xbit_u8\""},
      {"hqq-4", poke(kDown + ".group_size", 0, int32_t{48}),
       ".group_size\": expected a divisor of 4096 values, found 48"},
      {"hqq-4", poke(kDown + ".group_size", 0, int32_t{0}),
       ".group_size\": expected a divisor of 4096 values, found 0"},
      {"hqq-4", poke(kDown + ".group_size", 0, int32_t{64}),
       ".W_q\": expected shape [32, 64], found [64, 32]"},
      {"hqq-4", poke(kDown + ".shape", 0, int64_t{64}), ".W_q\": expected shape [128, 32], found [64, 32]"},
      {"hqq-4", poke(kDown + ".shape", 1, int64_t{0}), ".shape\": expected two sizes from 1"},
      {"hqq-4", cut(kDown + ".scale", 127), ".scale\": expected 128 values, one for each group, found 127"},
      {"hqq-4", poke(kDown + ".zero", 1, kHalfInfinity), ".zero\": expected finite values, found inf at [1]"},
      {"hqq-4", retype(kDown + ".W_q", "I8"), ".W_q\": expected type U8 of 4bit_u8, found I8"},
      {"hqq-3", retype(kKeys + ".W_q", "F32"), ".W_q\": expected type I32 of 3bit_32, found F32"},
      {"hqq-4-axis-0", cut(kDown + ".W_q", 31), ".W_q\": expected shape [32, 64], found [31, 64]"},
  });
}

TEST_CASE("lists of layers name what transformers and compressed-tensors mean by them") {
  const json config = {{"list", {"lm_head", "layers.1", R"(model\.layers\.\d+\.mlp)", "fc1"}}};
  const JsonFields fields(config, "config.json", "");
  const ExcludedModules excluded(fields, "list");
  CHECK(excluded.contains("lm_head"));
  CHECK(excluded.contains("layers.1.attn"));
  CHECK_FALSE(excluded.contains("layers.11.attn"));
  CHECK(excluded.contains("model.layers.12.mlp.gate"));
  CHECK_FALSE(excluded.contains("model.layers.12.mlp_norm"));
  CHECK(excluded.contains("model.decoder.layers.23.fc1"));
  CHECK_FALSE(excluded.contains("model.decoder.layers.23.fc2"));
  CHECK_FALSE(ExcludedModules(fields, "absent").contains("lm_head"));
  const ModulePattern pattern("a.*b", "here");
  CHECK((pattern.matches("axbc") && !pattern.matches("xaxb")));
}

TEST_CASE("flipped bytes and cuts of packed checkpoints never crash") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  const json golden = json::parse(std::ifstream(kGolden / "packed/cases.json"));
  size_t refused = 0;
  for (const auto& item : golden["cases"].items()) {
    const std::string& name = item.key();
    CAPTURE(name);
    for (int round = 0; round < 6; ++round) {
      Packed packed = load(name);
      auto tensor = packed.tensors.begin();
      std::advance(tensor, static_cast<std::ptrdiff_t>(random() % packed.tensors.size()));
      std::string& bytes = tensor->second.bytes;
      std::vector<uint64_t>& shape = tensor->second.shape;
      switch (random() % 3) {
        case 0:
          if (!bytes.empty()) bytes[random() % bytes.size()] = static_cast<char>(random());
          break;
        case 1:
          if (!shape.empty() && shape[0] != 0) cut(tensor->first, random() % (2 * shape[0]))(packed);
          break;
        default:
          if (shape.size() == 2) std::swap(shape[0], shape[1]);
      }
      const Folder folder;
      write_checkpoint(folder, packed);
      const std::string line = refusal([&] { read_all(folder.path()); });
      CAPTURE(line);
      CHECK((line.empty() || well_formed(line, folder.path())));
      refused += line.empty() ? 0 : 1;
    }
  }
  CHECK(refused > 0);
}
