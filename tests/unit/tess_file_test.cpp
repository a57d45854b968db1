// The .tess reader: what a valid file gives, and that every kind of broken file is refused with a line that
// names the fault.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <iostream>
#include <limits>

#include "gguf-like-format/strict_json.h"
#include "gguf-like-format/tess/tess_file.h"
#include "tests/unit/crafted_files.h"

using namespace tessera;
using namespace tessera::crafted;
using nlohmann::ordered_json;

namespace {

std::string load_fault(const std::string& content) {
  const AlignedBytes bytes(content);
  return refusal([&] { TessFile::from_memory(bytes.bytes(), "crafted.tess"); });
}

const std::string& valid_file() {
  static const std::string content = [] {
    const Folder folder;
    return small_file(folder / "small.tess", 7);
  }();
  return content;
}

ordered_json& tensor(ordered_json& header, std::string_view name) {
  for (ordered_json& entry : header["tensors"])
    if (entry["name"] == name) return entry;
  throw std::runtime_error("no such tensor");
}

struct BadHeader {
  const char* what;
  std::function<void(ordered_json&)> spoil;
  std::vector<const char*> names;  // each must appear in the refusal
};

const std::vector<BadHeader>& bad_headers() {
  static const std::vector<BadHeader> cases{
      {"unknown scheme",
       [](auto& h) { tensor(h, "layers.0.q")["scheme"] = "w3a7"; },
       {"tensor layers.0.q.scheme", "\"w3a7\""}},
      {"scheme of the wrong type",
       [](auto& h) { tensor(h, "layers.0.q")["scheme"] = 4; },
       {"tensor layers.0.q.scheme", "expected a string"}},
      {"duplicate tensor name",
       [](auto& h) { tensor(h, "layers.0.k_bias")["name"] = "layers.0.v_bias"; },
       {"tensor layers.0.v_bias", "appears twice"}},
      {"dimension 0",
       [](auto& h) { tensor(h, "layers.0.q")["shape"][1] = 0; },
       {"tensor layers.0.q.shape[1]", "found 0"}},
      {"negative dimension",
       [](auto& h) { tensor(h, "layers.0.q")["shape"][1] = -24; },
       {"tensor layers.0.q.shape[1]", "found -24"}},
      {"fractional dimension",
       [](auto& h) { tensor(h, "layers.0.q")["shape"][1] = 24.5; },
       {"tensor layers.0.q.shape[1]", "24.5"}},
      {"dimension over 64 bits",
       [](auto& h) { tensor(h, "layers.0.q")["shape"][1] = 1e30; },
       {"tensor layers.0.q.shape[1]", "1e+30"}},
      {"product overflow",
       [](auto& h) {
         tensor(h, "layers.0.gate")["shape"] = {uint64_t{1} << 33, uint64_t{1} << 33};
       },
       {"tensor layers.0.gate.shape", "2^63"}},
      {"rank 0",
       [](auto& h) { tensor(h, "output_norm")["shape"] = ordered_json::array(); },
       {"tensor output_norm.shape", "dimensions"}},
      {"rank 3",
       [](auto& h) {
         tensor(h, "layers.0.q")["shape"] = {2, 8, 24};
       },
       {"tensor layers.0.q.shape", "dimensions"}},
      {"vector in a matrix scheme",
       [](auto& h) { tensor(h, "output_norm")["scheme"] = "w8a8"; },
       {"tensor output_norm.shape", "w8a8"}},
      {"bytes are not f(scheme, shape)",
       [](auto& h) { tensor(h, "layers.0.q")["bytes"] = 1234; },
       {"tensor layers.0.q.bytes", "found 1234"}},
      {"group size does not divide the stored columns",
       [](auto& h) { tensor(h, "layers.0.k")["bytes"] = 16 * 24 / 2 + 16 * 2 + 64; },
       {"tensor layers.0.k.bytes", "w4a8-g128", "expected 1120"}},
      {"group size that the scheme does not have",
       [](auto& h) { h["quantization"]["group_columns"] = 100; },
       {"quantization.group_columns", "expected 128", "found 100"}},
      {"offset not aligned",
       [](auto& h) {
         tensor(h, "output_norm")["offset"] = tensor(h, "output_norm")["offset"].template get<int>() + 64;
       },
       {"tensor output_norm.offset", "multiple of 4096"}},
      {"overlap",
       [](auto& h) { tensor(h, "output_norm")["offset"] = tensor(h, "token_embedding")["offset"]; },
       {"tensor output_norm.offset", "overlaps"}},
      {"overlap with the header",
       [](auto& h) { tensor(h, "token_embedding")["offset"] = 0; },
       {"tensor token_embedding.offset", "overlaps"}},
      {"gap",
       [](auto& h) {
         tensor(h, "output_norm")["offset"] = tensor(h, "output_norm")["offset"].template get<int>() + 4096;
       },
       {"tensor output_norm.offset", "gap"}},
      {"past the end",
       [](auto& h) { tensor(h, "tokenizer.pieces")["offset"] = 1 << 20; },
       {"tensor tokenizer.pieces.offset", "within the file"}},
      {"far past the end",
       [](auto& h) { tensor(h, "tokenizer.pieces")["offset"] = std::numeric_limits<int64_t>::max() - 4095; },
       {"tensor tokenizer.pieces.offset", "within the file"}},
      {"bytes that no tensor owns",
       [](auto& h) { h["tensors"].erase(h["tensors"].size() - 1); },
       {"file bytes", "last tensor"}},
      {"hash is no hexadecimal",
       [](auto& h) { tensor(h, "layers.0.q")["xxh64"] = "0123456789ABCDEF"; },
       {"tensor layers.0.q.xxh64", "hexadecimal"}},
      {"hash too short",
       [](auto& h) { tensor(h, "layers.0.q")["xxh64"] = ""; },
       {"tensor layers.0.q.xxh64", "16"}},
      {"tensor name with a line break",
       [](auto& h) { tensor(h, "layers.0.q")["name"] = "a\nb"; },
       {"tensors[3].name", "a\\x0ab"}},
      {"tensor name missing",
       [](auto& h) { tensor(h, "layers.0.q").erase("name"); },
       {"tensors[3].name", "missing"}},
      {"tensor is no object", [](auto& h) { h["tensors"][2] = 5; }, {"tensors[2]", "object"}},
      {"tensor table is no array", [](auto& h) { h["tensors"] = "none"; }, {"tensors", "an array"}},

      {"embedding rows are not the vocabulary",
       [](auto& h) { h["model"]["vocabulary"] = 41; },
       {"tensor token_embedding.shape", "[41, 24]", "[40, 24]"}},
      {"hidden disagrees",
       [](auto& h) { h["model"]["hidden"] = 32; },
       {"tensor token_embedding.shape", "[40, 32]"}},
      {"head count disagrees",
       [](auto& h) { h["model"]["query_heads"] = 4; },
       {"tensor layers.0.q.shape", "query_heads"}},
      {"head size disagrees",
       [](auto& h) { h["model"]["head_dim"] = 16; },
       {"tensor layers.0.q.shape", "head_dim"}},
      {"kv heads disagree",
       [](auto& h) { h["model"]["kv_heads"] = 2; },
       {"tensor layers.0.k.shape", "kv_heads"}},
      {"ffn disagrees", [](auto& h) { h["model"]["ffn"] = 21; }, {"tensor layers.0.gate.shape", "[21, 24]"}},
      {"layer out of range",
       [](auto& h) { tensor(h, "layers.0.q")["name"] = "layers.1.q"; },
       {"tensor layers.1.q.name", "layers (1)"}},
      {"layer number with a sign",
       [](auto& h) { tensor(h, "layers.0.q")["name"] = "layers.-0.q"; },
       {"tensor layers.-0.q.name", "layers (1)"}},
      {"layer number with leading zeros",
       [](auto& h) { tensor(h, "layers.0.q")["name"] = "layers.00.q"; },
       {"tensor layers.00.q.name", "layers (1)"}},
      {"bias that the model does not have",
       [](auto& h) { h["model"]["qkv_bias"] = false; },
       {"tensor layers.0.q_bias", "no such bias"}},
      {"norm in bytes",
       [](auto& h) {
         auto& t = tensor(h, "output_norm");
         t["scheme"] = "u8";
         t["bytes"] = 24;
       },
       {"tensor output_norm.scheme", "expected f32"}},
      {"heads not divisible",
       [](auto& h) {
         h["model"]["query_heads"] = 3;
         h["model"]["kv_heads"] = 2;
       },
       {"model.kv_heads", "divisor"}},
      {"no heads", [](auto& h) { h["model"]["kv_heads"] = 0; }, {"model.kv_heads", "found 0"}},
      {"head size no multiple of 8",
       [](auto& h) { h["model"]["head_dim"] = 12; },
       {"model.head_dim", "multiple of 8"}},
      {"head size too large", [](auto& h) { h["model"]["head_dim"] = 2048; }, {"model.head_dim", "1024"}},
      {"too many layers", [](auto& h) { h["model"]["layers"] = 5000; }, {"model.layers", "4096"}},
      {"no layers", [](auto& h) { h["model"]["layers"] = 0; }, {"model.layers", "found 0"}},
      {"context too long", [](auto& h) { h["model"]["context"] = uint64_t{1} << 40; }, {"model.context"}},
      {"vocabulary of zero", [](auto& h) { h["model"]["vocabulary"] = 0; }, {"model.vocabulary"}},
      {"epsilon of zero", [](auto& h) { h["model"]["norm_epsilon"] = 0; }, {"model.norm_epsilon"}},
      {"negative theta", [](auto& h) { h["model"]["rope_theta"] = -1.0; }, {"model.rope_theta"}},
      {"unknown rope scaling",
       [](auto& h) { h["model"]["rope_scaling"]["kind"] = "ntk"; },
       {"model.rope_scaling.kind", "\"ntk\""}},
      {"yarn whose bounds cross",
       [](auto& h) {
         h["model"]["rope_scaling"] = {{"kind", "yarn"},         {"factor", 4.0},    {"original_context", 64},
                                       {"beta_fast", 1.0},       {"beta_slow", 1.0}, {"whole_pairs", true},
                                       {"attention_factor", 1.0}};
       },
       {"model.rope_scaling.beta_fast", "beta_slow"}},
      {"yarn without its context",
       [](auto& h) {
         h["model"]["rope_scaling"] = {{"kind", "yarn"}, {"factor", 4.0}};
       },
       {"model.rope_scaling.original_context", "missing"}},
      {"multiplier of zero",
       [](auto& h) { h["model"]["residual_multiplier"] = 0.0; },
       {"model.residual_multiplier", "found 0"}},
      {"rope frequencies that divide by zero",
       [](auto& h) { h["model"]["rope_scaling"]["high_freq_factor"] = 1.0; },
       {"model.rope_scaling.high_freq_factor", "low_freq_factor"}},
      {"rope context of zero",
       [](auto& h) { h["model"]["rope_scaling"]["original_context"] = 0; },
       {"model.rope_scaling.original_context"}},
      {"family missing", [](auto& h) { h["model"].erase("family"); }, {"model.family", "missing"}},
      {"family with odd characters", [](auto& h) { h["model"]["family"] = "../llama"; }, {"model.family"}},
      {"flag of the wrong type",
       [](auto& h) { h["model"]["tied_head"] = 1; },
       {"model.tied_head", "true or false"}},
      {"model is no object", [](auto& h) { h["model"] = ordered_json::array(); }, {"model", "an array"}},

      {"token table larger than the vocabulary",
       [](auto& h) {
         auto& t = tensor(h, "tokenizer.offsets");
         t["shape"] = {42};
         t["bytes"] = 42 * 4;
       },
       {"tensor tokenizer.offsets.shape", "vocabulary + 1 (41)"}},
      {"tokenizer table of rank 2",
       [](auto& h) {
         auto& t = tensor(h, "tokenizer.offsets");
         t["scheme"] = "f32";
         t["shape"] = {1, 1};
         t["bytes"] = 64;
       },
       {"tensor tokenizer.offsets.shape", "one dimension"}},
      {"stop token outside the vocabulary",
       [](auto& h) {
         h["chat"]["stop_tokens"] = {1, 40};
       },
       {"chat.stop_tokens[1]", "found 40"}},
      {"negative stop token",
       [](auto& h) { h["chat"]["stop_tokens"] = {-1}; },
       {"chat.stop_tokens[0]", "found -1"}},
      {"too many stop tokens",
       [](auto& h) { h["chat"]["stop_tokens"] = std::vector<int>(1025, 1); },
       {"chat.stop_tokens", "1024"}},
      {"template of the wrong type", [](auto& h) { h["chat"]["template"] = {1}; }, {"chat.template"}},
      {"unknown quantization",
       [](auto& h) { h["quantization"]["scheme"] = "q4_0"; },
       {"quantization.scheme", "\"q4_0\""}},
      {"unknown head scheme",
       [](auto& h) { h["quantization"]["head_scheme"] = ""; },
       {"quantization.head_scheme"}},
      {"kv of 5 bits",
       [](auto& h) { h["quantization"]["kv_bits"] = 5; },
       {"quantization.kv_bits", "4, 8 or 16"}},
      {"tokenizer settings are no object",
       [](auto& h) { h["tokenizer"]["settings"] = "x"; },
       {"tokenizer.settings", "object"}},
      {"top_p above 1", [](auto& h) { h["generation"]["top_p"] = 1.5; }, {"generation.top_p", "1.5"}},
      {"top_k fractional", [](auto& h) { h["generation"]["top_k"] = 1.5; }, {"generation.top_k", "integer"}},
  };
  return cases;
}

}  // namespace

TEST_CASE("a valid file gives back what was written") {
  const Folder folder;
  const std::string path = folder / "small.tess";
  const std::string content = small_file(path, 11);
  CHECK(content.size() % kTessAlignment == 0);
  const AlignedBytes memory(content);
  for (const int way : {0, 1, 2}) {
    CAPTURE(way);
    const auto file = way == 2 ? TessFile::from_memory(memory.bytes(), path) : TessFile::open(path, way == 0);
    CHECK(file->path() == path);
    CHECK(file->mapped_bytes().size() == content.size());
    const ModelHeader expected = small_header();
    const ModelHeader& header = file->header();
    CHECK(header.name == expected.name);
    const Hyperparameters& h = header.hyperparameters;
    const Hyperparameters& e = expected.hyperparameters;
    CHECK(h.family == e.family);
    CHECK(std::vector{h.vocabulary, h.hidden, h.layers, h.query_heads, h.kv_heads, h.head_dim, h.ffn,
                      h.context} == std::vector{e.vocabulary, e.hidden, e.layers, e.query_heads, e.kv_heads,
                                                e.head_dim, e.ffn, e.context});
    CHECK(h.norm_epsilon == e.norm_epsilon);
    CHECK(h.rope_theta == e.rope_theta);
    CHECK(h.rope_scaling.kind == RopeScalingKind::llama3);
    CHECK(h.rope_scaling.factor == 8.0);
    CHECK(h.rope_scaling.low_freq_factor == 1.0);
    CHECK(h.rope_scaling.high_freq_factor == 4.0);
    CHECK(h.rope_scaling.original_context == 64);
    CHECK(h.tied_head);
    CHECK(h.qkv_bias);
    CHECK(h.output_bias);
    CHECK(header.quantization.scheme == "w4a8-g128");
    CHECK(header.quantization.head_scheme == "w8a8");
    CHECK(header.quantization.kv_bits == 8);
    CHECK(header.quantization.command == "tessera quantize small");
    CHECK(header.tokenizer.kind == "byte-bpe");
    CHECK(header.tokenizer.settings_json == R"({"bos":1})");
    CHECK(header.chat.chat_template == expected.chat.chat_template);
    CHECK(header.chat.stop_tokens == expected.chat.stop_tokens);
    CHECK(header.generation.temperature == 0.7);
    CHECK(header.generation.top_k == 40);
    CHECK(header.generation.do_sample == true);
    CHECK_FALSE(header.generation.top_p.has_value());

    std::mt19937_64 random(11);
    const std::vector<PlannedTensor> planned = small_tensors();
    REQUIRE(file->tensors().size() == planned.size());
    for (size_t i = 0; i < planned.size(); ++i) {
      const StoredTensor& tensor = file->tensors()[i];
      CAPTURE(tensor.name);
      CHECK(tensor.name == planned[i].name);
      CHECK(tensor.scheme == planned[i].scheme);
      CHECK(tensor.shape == planned[i].shape);
      CHECK(file->find(tensor.name) == &tensor);
      CHECK((tensor.bytes.data() - file->mapped_bytes().data()) % kTessAlignment == 0);
      const std::string expected_bytes = tensor_content(planned[i], random);
      REQUIRE(tensor.bytes.size() == expected_bytes.size());
      CHECK(std::memcmp(tensor.bytes.data(), expected_bytes.data(), expected_bytes.size()) == 0);
    }
    CHECK(file->find("layers.0.nothing") == nullptr);
    CHECK(contains(refusal([&] { file->require("layers.0.nothing"); }), "tensor layers.0.nothing: missing"));
    CHECK(file->verify() == std::vector<std::string>{});
  }
}

TEST_CASE("headers that break a rule are refused by name") {
  for (const BadHeader& bad : bad_headers()) {
    CAPTURE(bad.what);
    ordered_json header = header_of(valid_file());
    bad.spoil(header);
    const std::string line = load_fault(with_header(valid_file(), header.dump()));
    CAPTURE(line);
    CHECK(well_formed(line, "crafted.tess"));
    for (const char* name : bad.names) CHECK(contains(line, name));
  }
  CHECK(load_fault(with_header(valid_file(), header_of(valid_file()).dump())).empty());  // the method itself
}

TEST_CASE("fixed fields that break a rule are refused by name") {
  const auto spoiled = [](const std::function<void(std::string&)>& spoil) {
    std::string file = valid_file();
    spoil(file);
    const std::string line = load_fault(file);
    CAPTURE(line);
    CHECK(well_formed(line, "crafted.tess"));
    return line;
  };
  CHECK(contains(spoiled([](auto& f) { f[0] = 'X'; }), "magic"));
  CHECK(contains(spoiled([](auto& f) { f.replace(0, 8, "GGUF\3\0\0\0"); }), "magic"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint32_t>(f, 8, 2); }), "format version: expected 1 to 1"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint32_t>(f, 8, 0); }), "format version"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint32_t>(f, 12, 1); }), "flags"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint64_t>(f, 16, f.size() - 63); }), "header bytes"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint64_t>(f, 16, (uint64_t{64} << 20) + 1); }),
                 "header bytes"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint64_t>(f, 16, ~uint64_t{0}); }), "header bytes"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint64_t>(f, 24, f.size() + 1); }), "file bytes"));
  CHECK(contains(spoiled([](auto& f) { f += '\0'; }), "file bytes"));
  CHECK(contains(spoiled([](auto& f) { f.resize(f.size() - 1); }), "file bytes"));
  CHECK(contains(spoiled([](auto& f) { put_field<uint64_t>(f, 32, 1); }), "header hash"));
  CHECK(contains(spoiled([](auto& f) { f[100] = static_cast<char>(f[100] ^ 1); }), "header hash"));
  CHECK(contains(spoiled([](auto& f) { f[40] = 1; }), "reserved"));
  CHECK(contains(spoiled([](auto& f) { f[63] = 1; }), "reserved"));
  CHECK(contains(spoiled([](auto& f) { f[4095] = 1; }), "padding after the header"));
  CHECK(contains(spoiled([](auto& f) { f.clear(); }), "file bytes"));
  CHECK(contains(spoiled([](auto& f) { f.resize(63); }), "file bytes"));
}

TEST_CASE("JSON that breaks a rule is refused") {
  const auto fault = [](const std::string& text) {
    const std::string line = load_fault(with_header(valid_file(), text));
    CAPTURE(line);
    CHECK(well_formed(line, "crafted.tess"));
    return line;
  };
  const std::string good = header_of(valid_file()).dump();
  CHECK(contains(fault(""), "header: JSON"));
  CHECK(contains(fault("[]"), "object"));
  CHECK(contains(fault("7"), "object"));
  CHECK(contains(fault(std::string(17, '[') + std::string(17, ']')), "deeper"));
  CHECK(contains(fault(std::string(3000, '[')), "deeper"));
  CHECK(contains(fault(good.substr(0, good.size() - 1)), "malformed"));
  CHECK(contains(fault(good + "{}"), "malformed"));
  CHECK(contains(fault(good + std::string(1, '\0') + "x"), "NUL"));
  CHECK(contains(fault("{\"model\":{},\"model\":{}}"), "\"model\" appears twice"));
  CHECK(contains(fault(good.substr(0, 1) + "\"chat\":1," + good.substr(1)), "\"chat\" appears twice"));
  CHECK(contains(fault("{\"a\":\"\xff\"}"), "malformed"));
  CHECK(contains(fault("{\"a\":1e999}"), "out of range"));
  CHECK(contains(fault("{\"a\":NaN}"), "malformed"));
  CHECK(contains(fault("{} // comment"), "malformed"));
}

TEST_CASE("JSON of more values than memory is meant for is refused") {
  const tessera::JsonLimits limits{1000, 8, 5};
  CHECK(tessera::parse_strict_json("[1,{\"a\":[]},true]", "few.json", limits).size() == 3);
  CHECK_THROWS_WITH_AS(tessera::parse_strict_json("[1,{\"a\":[null]},true]", "many.json", limits),
                       "many.json: JSON: expected at most 5 values", tessera::FileError);
  CHECK_THROWS_WITH_AS(tessera::parse_strict_json("[[],[],[],[],[]]", "many.json", limits),
                       "many.json: JSON: expected at most 5 values", tessera::FileError);
}

TEST_CASE("a file cut short anywhere is refused") {
  const std::string& whole = valid_file();
  std::vector<size_t> lengths;
  for (size_t n = 0; n < 4200; ++n) lengths.push_back(n);
  for (size_t page = 4096; page < whole.size(); page += 4096)
    for (const size_t n : {page - 1, page, page + 1}) lengths.push_back(n);
  lengths.push_back(whole.size() - 1);
  for (const size_t length : lengths) {
    CAPTURE(length);
    std::string cut = whole.substr(0, length);
    REQUIRE(contains(load_fault(cut), length < 64 ? "file bytes" : "file bytes: expected"));
    repair(cut);  // even when the file says that its size is right
    REQUIRE_FALSE(load_fault(cut).empty());
  }
}

TEST_CASE("a flipped byte never crashes the reader and never goes unnoticed") {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  const std::string& whole = valid_file();
  const size_t header_end = 64 + get_field<uint64_t>(whole, 16);
  for (int round = 0; round < 6000; ++round) {
    std::string file = whole;
    const size_t at = round % 3 == 0 ? random() % file.size() : random() % header_end;
    file[at] = static_cast<char>(file[at] ^ (1 + random() % 255));
    CAPTURE(at);
    const AlignedBytes bytes(file);
    const std::string line = refusal([&] {
      const auto opened = TessFile::from_memory(bytes.bytes(), "crafted.tess");
      REQUIRE_FALSE(opened->verify().empty());
    });
    if (at < header_end) REQUIRE_FALSE(line.empty());
    std::string repaired = file;
    repair(repaired);
    const AlignedBytes repaired_bytes(repaired);
    const std::string second =
        refusal([&] { TessFile::from_memory(repaired_bytes.bytes(), "crafted.tess")->verify(); });
    REQUIRE((second.empty() || well_formed(second, "crafted.tess")));
  }
}

TEST_CASE("verify names damaged tensors and bad scales") {
  const auto find = [](std::string_view name) {
    const ordered_json header = header_of(valid_file());
    for (const ordered_json& entry : header["tensors"])
      if (entry["name"] == name) return entry["offset"].get<size_t>();
    return size_t{0};
  };
  const auto faults_of = [&](const std::function<void(std::string&)>& spoil) {
    std::string file = valid_file();
    spoil(file);
    ordered_json header = header_of(file);  // hashes made right, so that only the scales are wrong
    for (auto& entry : header["tensors"])
      entry["xxh64"] = fmt::format(
          "{:016x}", XXH64(file.data() + entry["offset"].get<size_t>(), entry["bytes"].get<size_t>(), 0));
    const AlignedBytes bytes(with_header(file, header.dump()));
    return TessFile::from_memory(bytes.bytes(), "crafted.tess")->verify();
  };
  CHECK(faults_of([](auto&) {}).empty());
  const auto expect_one = [&](const std::function<void(std::string&)>& spoil, std::string_view name,
                              std::string_view field) {
    const std::vector<std::string> faults = faults_of(spoil);
    REQUIRE(faults.size() == 1);
    CAPTURE(faults[0]);
    CHECK(contains(faults[0], name));
    CHECK(contains(faults[0], field));
  };
  const size_t embedding = find("token_embedding");
  const RowTail embedding_tail = row_tail(Scheme::w8a8, 40, 24);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -1.0f, -0.0f, 0.0f})
    expect_one([&](auto& f) { put_field(f, embedding + embedding_tail.scales + 4 * 5, bad); },
               "tensor token_embedding", "scale of row 5");
  const size_t q = find("layers.0.q");
  const RowTail q_tail = row_tail(Scheme::w4a8, 16, 24);
  expect_one([&](auto& f) { put_field(f, q + q_tail.scales + 4 * 3, 0.0f); }, "layers.0.q", "scale of row 3");
  expect_one([&](auto& f) { f[q + q_tail.zeros + 3] = 16; }, "layers.0.q", "zero point of row 3");
  const size_t k = find("layers.0.k");
  const RowTail k_tail = row_tail(Scheme::w4a8_g128, 8, 24);
  expect_one([&](auto& f) { put_field(f, k + k_tail.scales + 4 * 7, std::nanf("")); }, "layers.0.k",
             "scale of row 7");
  expect_one([&](auto& f) { f[k + tile::group_scale_byte(2, 0)] = 0; }, "layers.0.k",
             "scale of row 2, group 0");
  expect_one([&](auto& f) { f[k + tile::group_scale_byte(2, 0)] = 17; }, "layers.0.k", "group 0");
  expect_one([&](auto& f) { f[k + tile::group_offset_byte(2, 0)] = 0; }, "layers.0.k", "offset of row 2");
  expect_one([&](auto& f) { f[k + tile::group_offset_byte(2, 0)] = static_cast<char>(129); }, "layers.0.k",
             "offset of row 2");
  expect_one(
      [&](auto& f) {
        f[k + tile::group_scale_byte(2, 0)] = 16;
        f[k + tile::group_offset_byte(2, 0)] = static_cast<char>(128);
        f[k + tile::nibble_in_grouped_panel(2, 5).byte] =
            static_cast<char>(0x80);  // column 5: code 8, 256 in all
      },
      "layers.0.k", "code of row 2, column");
  // A changed weight without a changed hash, and a byte in the padding between tensors.
  std::string file = valid_file();
  file[find("layers.0.v") + 9] ^= 1;
  file[find("output_norm") - 1] = 1;
  const AlignedBytes bytes(file);
  const std::vector<std::string> faults = TessFile::from_memory(bytes.bytes(), "crafted.tess")->verify();
  REQUIRE(faults.size() == 2);
  CHECK(contains(faults[0], "tensor token_embedding: padding"));
  CHECK(contains(faults[1], "tensor layers.0.v: xxh64"));
}

TEST_CASE("files that cannot be opened say why") {
  const Folder folder;
  for (const bool use_mmap : {true, false}) {
    CHECK(contains(refusal([&] { TessFile::open(folder / "absent.tess", use_mmap); }),
                   "absent.tess: cannot be opened"));
    CHECK(contains(refusal([&] { TessFile::open(folder.path(), use_mmap); }), "found a folder"));
    CHECK(contains(refusal([&] { TessFile::open("/dev/null", use_mmap); }), "regular file"));
    write_file(folder / "empty.tess", "");
    CHECK(contains(refusal([&] { TessFile::open(folder / "empty.tess", use_mmap); }), "file bytes"));
  }
  const AlignedBytes bytes(valid_file());
  CHECK(contains(refusal([&] { TessFile::from_memory(bytes.bytes().subspan(1), "odd"); }), "address"));
}
