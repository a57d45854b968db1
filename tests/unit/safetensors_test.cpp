// safetensors files, single and sharded: what a valid one gives and how every broken one is refused.
#include "gguf-like-format/safetensors/safetensors.h"

#include <doctest/doctest.h>

#include <functional>
#include <iostream>

#include "gguf-like-format/float_types.h"
#include "tests/unit/crafted_files.h"

using namespace tessera;
using namespace tessera::crafted;
using nlohmann::ordered_json;

namespace {

std::string pack(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + data;
}

std::string fault_of(const std::string& content) {
  const std::span<const char> chars(content);
  const std::string line = refusal([&] { parse_safetensors(std::as_bytes(chars), "crafted.safetensors"); });
  if (!line.empty()) CHECK(well_formed(line, "crafted.safetensors"));
  return line;
}

std::string fault_of(const std::string& header, size_t data_bytes) {
  return fault_of(pack(header, std::string(data_bytes, 'd')));
}

// Two tensors that cover 32 bytes.
ordered_json small_json() {
  return {{"__metadata__", {{"format", "pt"}}},
          {"a", {{"dtype", "F32"}, {"shape", {2, 3}}, {"data_offsets", {0, 24}}}},
          {"b", {{"dtype", "BF16"}, {"shape", {4}}, {"data_offsets", {24, 32}}}}};
}

std::string fault_with(const std::function<void(ordered_json&)>& spoil) {
  ordered_json header = small_json();
  spoil(header);
  const std::string line = fault_of(header.dump(), 32);
  CAPTURE(line);
  CHECK_FALSE(line.empty());
  return line;
}

std::string shard(const std::string& name, float value) {
  std::string data(4, '\0');
  std::memcpy(data.data(), &value, 4);
  return pack(ordered_json{{name, {{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {0, 4}}}}}.dump(),
              data);
}

}  // namespace

TEST_CASE("a file with every type gives its tensors, whatever the order and alignment") {
  std::string data;
  std::mt19937_64 random(3);
  for (size_t i = 0; i < 4 * 6 + 2 * 5 + 2 * 7 + 4 * 2 + 3; ++i) data += static_cast<char>(random() & 0x3f);
  const ordered_json header = {
      {"w", {{"dtype", "F32"}, {"shape", {2, 3}}, {"data_offsets", {3, 27}}}},
      {"codes", {{"dtype", "U8"}, {"shape", {3}}, {"data_offsets", {0, 3}}}},
      {"h", {{"dtype", "F16"}, {"shape", {5}}, {"data_offsets", {27, 37}}}},
      {"empty", {{"dtype", "F32"}, {"shape", {0, 9}}, {"data_offsets", {37, 37}}}},
      {"b", {{"dtype", "BF16"}, {"shape", {7, 1}}, {"data_offsets", {37, 51}}}},
      {"q", {{"dtype", "I32"}, {"shape", {2}}, {"data_offsets", {51, 59}}}},
  };
  const Folder folder;
  write_file(folder / "model.safetensors", pack(header.dump() + "   ", data));
  for (const std::string& path : {folder.path(), folder / "model.safetensors"}) {
    const Checkpoint checkpoint = Checkpoint::open(path);
    REQUIRE(checkpoint.tensors().size() == 6);
    CHECK(checkpoint.find("nothing") == nullptr);
    const CheckpointTensor* w = checkpoint.find("w");
    REQUIRE(w != nullptr);
    CHECK(w->type == CheckpointType::f32);
    CHECK(w->shape == std::vector<uint64_t>{2, 3});
    CHECK(w->elements() == 6);
    std::vector<float> values(4);
    read_floats(*w, 2, values);
    CHECK(std::memcmp(values.data(), data.data() + 3 + 8, 16) == 0);
    const auto bits = [&data](size_t at) {
      uint16_t out = 0;
      std::memcpy(&out, data.data() + at, 2);
      return out;
    };
    std::vector<float> halves(5);
    read_floats(*checkpoint.find("h"), 0, halves);
    std::vector<float> brains(6);
    read_floats(*checkpoint.find("b"), 1, brains);
    for (size_t i = 0; i < halves.size(); ++i) CHECK(halves[i] == f16_to_f32(bits(27 + 2 * i)));
    for (size_t i = 0; i < brains.size(); ++i) CHECK(brains[i] == bf16_to_f32(bits(39 + 2 * i)));
    CHECK(checkpoint.find("empty")->elements() == 0);
    read_floats(*checkpoint.find("empty"), 0, {});
    std::vector<float> one(1);
    CHECK(contains(refusal([&] { read_floats(*w, 6, one); }), "tensor w"));
    CHECK(contains(refusal([&] { read_floats(*w, ~uint64_t{0}, one); }), "tensor w"));
    CHECK(contains(refusal([&] { read_floats(*checkpoint.find("q"), 0, one); }), "tensor q: dtype"));
    CHECK(contains(refusal([&] { read_floats(*checkpoint.find("codes"), 0, one); }), "tensor codes: dtype"));
  }
}

TEST_CASE("every type has its name and size") {
  const std::vector<std::tuple<std::string, CheckpointType, size_t>> types = {
      {"F32", CheckpointType::f32, 4},   {"F16", CheckpointType::f16, 2},
      {"BF16", CheckpointType::bf16, 2}, {"F8_E4M3", CheckpointType::f8_e4m3, 1},
      {"I64", CheckpointType::i64, 8},   {"I32", CheckpointType::i32, 4},
      {"I8", CheckpointType::i8, 1},     {"U8", CheckpointType::u8, 1}};
  for (const auto& [name, type, size] : types) {
    CAPTURE(name);
    const ordered_json header = {{"t", {{"dtype", name}, {"shape", {3}}, {"data_offsets", {0, 3 * size}}}}};
    const std::string file = pack(header.dump(), std::string(3 * size, 'd'));
    const auto tensors = parse_safetensors(std::as_bytes(std::span<const char>(file)), "crafted.safetensors");
    REQUIRE(tensors.size() == 1);
    CHECK(tensors[0].type == type);
    CHECK(tensors[0].elements() == 3);
    CHECK(type_name(type) == name);
    std::vector<float> values(3);
    const std::string line = refusal([&] { read_floats(tensors[0], 0, values); });
    CHECK(line.empty() == (type <= CheckpointType::bf16));
    if (!line.empty()) CHECK(contains(line, "expected F32, F16 or BF16, found " + name));
  }
}

TEST_CASE("files that break a rule are refused by name") {
  CHECK(fault_of(small_json().dump(), 32).empty());  // the method itself
  CHECK(contains(fault_of(""), "header length"));
  CHECK(contains(fault_of("1234567"), "header length"));
  CHECK(contains(fault_of(std::string(8, '\0')), "begin with"));
  std::string long_header = pack("{}", "");
  put_field<uint64_t>(long_header, 0, 3);
  CHECK(contains(fault_of(long_header), "header length: expected at most the 2 bytes"));
  put_field<uint64_t>(long_header, 0, 100'000'001);
  CHECK(contains(fault_of(long_header), "header length: expected at most 100000000"));
  put_field<uint64_t>(long_header, 0, ~uint64_t{0});
  CHECK(contains(fault_of(long_header), "header length"));
  CHECK(contains(fault_of(" {}", 0), "begin with"));
  CHECK(contains(fault_of("[]", 0), "begin with"));
  CHECK(contains(fault_of("\xef\xbb\xbf{}", 0), "begin with"));
  CHECK(contains(fault_of("{", 0), "malformed"));
  CHECK(contains(fault_of("{\"a\":" + std::string(50, '[') + std::string(50, ']') + "}", 0), "deeper"));
  CHECK(contains(fault_of("{\"a\":1,\"a\":2}", 0), "\"a\" appears twice"));
  CHECK(contains(fault_of("{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}", 0), "appears twice"));
  CHECK(contains(fault_of("{}", 1), "hole"));
  CHECK(contains(fault_with([](auto& h) { h["__metadata__"] = 1; }), "__metadata__"));
  CHECK(contains(fault_with([](auto& h) { h["__metadata__"]["x"] = 1; }), "__metadata__.x"));
  CHECK(contains(fault_with([](auto& h) { h["a"] = 1; }), "tensor a: expected a JSON object"));
  CHECK(contains(fault_with([](auto& h) { h["a"].erase("dtype"); }), "tensor a.dtype: missing"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["dtype"] = "F64"; }), "tensor a.dtype"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["dtype"] = "f32"; }), "tensor a.dtype"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["dtype"] = 3; }), "tensor a.dtype"));
  CHECK(contains(fault_with([](auto& h) { h["a"].erase("shape"); }), "tensor a.shape: missing"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["shape"] = {2, -3}; }), "tensor a.shape[1]"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["shape"] = {2, 2.5}; }), "tensor a.shape[1]"));
  CHECK(
      contains(fault_with([](auto& h) { h["a"]["shape"] = {1, 1, 1, 1, 1, 1, 1, 2, 3}; }), "tensor a.shape"));
  CHECK(contains(fault_with([](auto& h) {
                   h["a"]["shape"] = {uint64_t{1} << 40, uint64_t{1} << 40};
                 }),
                 "tensor a.shape"));
  CHECK(contains(fault_with([](auto& h) {
                   h["a"]["shape"] = {2, 4};
                 }),
                 "tensor a.data_offsets: expected 32 bytes"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["data_offsets"] = {0}; }), "tensor a.data_offsets"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["data_offsets"] = {24, 0}; }), "tensor a.data_offsets[1]"));
  CHECK(contains(fault_with([](auto& h) { h["a"]["data_offsets"] = {-8, 16}; }), "tensor a.data_offsets[0]"));
  CHECK(contains(fault_with([](auto& h) { h["b"]["data_offsets"] = {32, 40}; }), "tensor b.data_offsets[1]"));
  CHECK(contains(fault_with([](auto& h) { h["b"]["data_offsets"] = {16, 24}; }), "tensors overlap"));
  CHECK(contains(fault_with([](auto& h) {
                   h["b"]["shape"] = {3};
                   h["b"]["data_offsets"] = {26, 32};
                 }),
                 "tensor b.data_offsets: expected to begin at 24, found 26: the data has a hole"));
  CHECK(contains(fault_with([](auto& h) { h.erase("b"); }), "the data has a hole"));
  CHECK(contains(fault_with([](auto& h) { h[""] = h["b"]; }), "tensor name"));
}

TEST_CASE("flipped bytes and cuts never crash the parser") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  const std::string whole = pack(small_json().dump(), std::string(32, 'd'));
  for (size_t length = 0; length < whole.size(); ++length)
    REQUIRE_FALSE(fault_of(whole.substr(0, length)).empty());
  for (int round = 0; round < 20000; ++round) {
    std::string file = whole;
    const size_t at = random() % (whole.size() - 32);
    file[at] = static_cast<char>(random());
    const std::string line = refusal([&] {
      for (const CheckpointTensor& tensor :
           parse_safetensors(std::as_bytes(std::span<const char>(file)), "crafted.safetensors")) {
        std::vector<float> values(tensor.elements());
        if (tensor.type <= CheckpointType::bf16) read_floats(tensor, 0, values);
      }
    });
    REQUIRE((line.empty() || well_formed(line, "crafted.safetensors")));
  }
}

TEST_CASE("shards are found through their index") {
  const Folder folder;
  write_file(folder / "model-1.safetensors", shard("one", 1.5f));
  write_file(folder / "model-2.safetensors", shard("two", 2.5f));
  const std::string index = folder / "model.safetensors.index.json";
  const auto write_index = [&](const ordered_json& map) {
    write_file(index, ordered_json{{"metadata", {{"total_size", 8}}}, {"weight_map", map}}.dump());
  };
  const auto fault = [&] {
    const std::string line = refusal([&] { Checkpoint::open(folder.path()); });
    CAPTURE(line);
    CHECK(well_formed(line, folder.path()));
    return line;
  };
  write_index({{"two", "model-2.safetensors"}, {"one", "model-1.safetensors"}});
  Checkpoint checkpoint = Checkpoint::open(folder.path());
  const Checkpoint moved = std::move(checkpoint);
  REQUIRE(moved.tensors().size() == 2);
  float value = 0;
  read_floats(*moved.find("two"), 0, {&value, 1});
  CHECK(value == 2.5f);

  write_index({{"one", "model-1.safetensors"}, {"two", "model-1.safetensors"}});
  CHECK(contains(fault(), "tensor two: missing, but the index says it is here"));
  write_index({{"one", "model-1.safetensors"}, {"aaa", "model-2.safetensors"}});
  CHECK(contains(fault(), "tensor aaa: missing"));
  write_index({{"one", "model-1.safetensors"}, {"two", "model-3.safetensors"}});
  CHECK(contains(fault(), "model-3.safetensors: cannot be opened"));
  write_file(folder / "model-2.safetensors", shard("one", 2.5f));
  write_index({{"one", "model-1.safetensors"}});
  CHECK(Checkpoint::open(folder.path()).tensors().size() == 1);
  write_file(folder / "model-1.safetensors",
             pack(R"({"one":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("spare":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                  "xy"));
  CHECK(contains(fault(), "tensor spare: the index does not say it is here"));
  for (const char* name : {"../model-1.safetensors", "/etc/passwd", "", ".", "..", "sub/model.safetensors",
                           "a\\b.safetensors"}) {
    CAPTURE(name);
    write_index({{"one", name}});
    CHECK(contains(fault(), "weight_map.one: expected the name of a file in the same folder"));
  }
  write_index({{"one", 1}});
  CHECK(contains(fault(), "weight_map.one"));
  write_index(ordered_json::object());
  CHECK(contains(fault(), "weight_map: expected 1 to"));
  write_file(index, "{}");
  CHECK(contains(fault(), "weight_map: missing"));
  write_file(index, "{\"weight_map\":{\"one\":\"a\",\"one\":\"b\"}}");
  CHECK(contains(fault(), "appears twice"));
  std::filesystem::remove(index);
  CHECK(contains(fault(), "found neither"));
  CHECK(contains(refusal([&] { Checkpoint::open(folder / "absent"); }), "cannot be opened"));
}

TEST_CASE("shared checkpoints open and their tensors are finite") {
  const std::string folder = std::string(TESSERA_SHARED_DIR) + "/models/tessera-tiny";
  if (!std::filesystem::exists(folder + "/model.safetensors")) {
    std::cout << "skipped: no shared checkpoint\n";
    MESSAGE("skipped: no shared checkpoint");
    return;
  }
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const CheckpointTensor* embedding = checkpoint.find("model.embed_tokens.weight");
  REQUIRE(embedding != nullptr);
  CHECK(embedding->shape == std::vector<uint64_t>{4096, 256});
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    std::vector<float> values(tensor.elements());
    read_floats(tensor, 0, values);
    double sum = 0;
    for (const float value : values) sum += static_cast<double>(value) * static_cast<double>(value);
    CAPTURE(tensor.name);
    CHECK(std::isfinite(sum));
    CHECK(sum > 0);
  }
}
