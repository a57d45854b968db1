// GGUF files, whole and in parts: what right ones give and how every broken one is refused.
#include "gguf-like-format/gguf/gguf_file.h"

#include <doctest/doctest.h>

#include <functional>
#include <random>

#include "tests/unit/crafted_files.h"
#include "tests/unit/gguf_writer.h"

using namespace tessera;
using namespace tessera::crafted;

namespace {

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ8 = 8;

std::string floats(size_t count, float first = 0) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) bytes += raw(first + static_cast<float>(i));
  return bytes;
}

// A key of every type and two tensors.
GgufWriter small() {
  GgufWriter file;
  file.text("general.architecture", "llama");
  file.u32("a.u32", 7);
  file.set("a.u8", typed(GgufType::u8, raw(uint8_t{200})));
  file.set("a.i8", typed(GgufType::i8, raw(int8_t{-5})));
  file.set("a.u16", typed(GgufType::u16, raw(uint16_t{60000})));
  file.set("a.i16", typed(GgufType::i16, raw(int16_t{30000})));
  file.set("a.i32", typed(GgufType::i32, raw(int32_t{70000})));
  file.set("a.u64", typed(GgufType::u64, raw(uint64_t{1} << 40)));
  file.set("a.i64", typed(GgufType::i64, raw(int64_t{-1})));
  file.f32("a.f32", 1e-5f);
  file.set("a.f64", typed(GgufType::f64, raw(0.25)));
  file.boolean("a.yes", true);
  file.texts("a.texts", {"one", "", "three"});
  file.integers("a.integers", {4, 4, 4});
  file.numbers("a.numbers", {0.5f, -2.0f});
  file.tensors.push_back({"w", {3, 2}, kF32, floats(6), {}});
  file.tensors.push_back({"q", {32}, kQ8, raw(uint16_t{0x3C00}) + std::string(32, '\3'), {}});
  return file;
}

std::string fault_of(const std::string& content) {
  const std::span<const char> chars(content);
  const std::string line = refusal([&] { parse_gguf(std::as_bytes(chars), "crafted.gguf"); });
  if (!line.empty()) CHECK(well_formed(line, "crafted.gguf"));
  return line;
}

std::string fault_with(const std::function<void(GgufWriter&)>& spoil) {
  GgufWriter file = small();
  spoil(file);
  const std::string line = fault_of(file.file());
  CAPTURE(line);
  CHECK_FALSE(line.empty());
  return line;
}

std::string metadata_fault(const std::function<void(const GgufMetadata&)>& use) {
  const std::string content = small().file();
  const GgufPart part = parse_gguf(std::as_bytes(std::span(content)), "crafted.gguf");
  const std::string line = refusal([&] { use(part.metadata); });
  CAPTURE(line);
  CHECK(well_formed(line, "crafted.gguf"));
  return line;
}

}  // namespace

TEST_CASE("keys of every type and tensors are read, whatever version and alignment") {
  for (const uint32_t version : {2u, 3u}) {
    for (const uint64_t alignment : {1, 2, 32, 64, 4096}) {
      CAPTURE(alignment);
      GgufWriter file = small();
      file.version = version;
      file.alignment = alignment;
      if (alignment != 32) file.u32("general.alignment", static_cast<uint32_t>(alignment));
      const std::string content = file.file();
      const GgufPart part = parse_gguf(std::as_bytes(std::span(content)), "crafted.gguf");
      const GgufMetadata& keys = part.metadata;
      CHECK(keys.text("general.architecture", 16) == "llama");
      CHECK(keys.integer("a.u32", 7, 7) == 7);
      CHECK(keys.integer("a.u8", 0, 255) == 200);
      CHECK(keys.integer("a.u16", 0, 65535) == 60000);
      CHECK(keys.integer("a.i16", 0, 65535) == 30000);
      CHECK(keys.integer("a.i32", 0, 80000) == 70000);
      CHECK(keys.integer("a.u64", 0, uint64_t{1} << 41) == uint64_t{1} << 40);
      CHECK(keys.number("a.i8", -10, 0) == -5.0);
      CHECK(keys.number("a.f32", 0, 1) == 1e-5);
      CHECK(keys.number("a.f64", 0, 1) == 0.25);
      CHECK(keys.optional_boolean("a.yes") == true);
      CHECK_FALSE(keys.optional_boolean("a.no"));
      CHECK_FALSE(keys.optional_integer("a.no", 0, 1));
      CHECK_FALSE(keys.optional_number("a.no", 0, 1));
      CHECK_FALSE(keys.optional_text("a.no", 1));
      CHECK(keys.texts("a.texts") == std::vector<std::string_view>{"one", "", "three"});
      CHECK(keys.integers("a.integers", 0, 4) == std::vector<uint64_t>{4, 4, 4});
      CHECK(keys.uniform_integer("a.integers", 0, 4) == 4);
      CHECK(keys.uniform_integer("a.u32", 0, 9) == 7);
      CHECK(keys.numbers("a.numbers") == std::vector<float>{0.5f, -2.0f});
      REQUIRE(part.tensors.size() == 2);
      CHECK(part.tensors[0].name == "w");
      CHECK(part.tensors[0].shape == std::vector<uint64_t>{2, 3});
      CHECK(part.tensors[0].elements() == 6);
      std::vector<float> values(4);
      read_floats(part.tensors[0], 2, values);
      CHECK(values == std::vector<float>{2, 3, 4, 5});
      read_floats(part.tensors[1], 28, values);
      CHECK(values == std::vector<float>{3, 3, 3, 3});
      CHECK(
          contains(refusal([&] { read_floats(part.tensors[1], 29, values); }), "within 32, found 4 from 29"));
    }
  }
  GgufWriter empty;
  CHECK(fault_of(empty.file()).empty());
}

TEST_CASE("every cut of a file is refused, and no byte of its header can do harm") {
  const std::string content = small().file();
  for (size_t length = 0; length < content.size(); ++length) {
    CAPTURE(length);
    REQUIRE_FALSE(fault_of(content.substr(0, length)).empty());
  }
  std::mt19937_64 random(11);
  for (size_t round = 0; round < 3000; ++round) {
    std::string spoiled = content;
    for (size_t i = 0; i < 1 + random() % 3; ++i)
      spoiled[random() % spoiled.size()] = static_cast<char>(random());
    (void)fault_of(spoiled);
  }
}

TEST_CASE("broken headers are refused by name") {
  CHECK(contains(fault_of("GGML" + small().file().substr(4)), "magic: expected \"GGUF\", found \"GGML\""));
  CHECK(contains(fault_with([](GgufWriter& f) { f.version = 1; }), "version: expected 2 or 3, found 1"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.version = 4; }), "version: expected 2 or 3, found 4"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.version = 0; }), "version: expected 2 or 3, found 0"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.version = 0x03000000; }),
                 "version: expected a little-endian file, found a big-endian one"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.tensor_count = uint64_t{1} << 60; }),
                 "number of tensors: expected at most"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.key_count = uint64_t{1} << 60; }),
                 "number of keys: expected at most"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.keys.push_back(f.keys[1]); }),
                 "a.u32: expected a key that appears once"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.keys[0].key = ""; }), "key 0: expected 1 to 65535 bytes"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.keys[2].key = std::string(70000, 'k'); }),
                 "key 2: expected 1 to 65535 bytes, found 70000"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.set("a.u32", raw(uint32_t{13}) + raw(uint32_t{0})); }),
                 "a.u32: expected a value type from 0 to 12, found 13"));
  CHECK(
      contains(fault_with([](GgufWriter& f) { f.set("a.u32", typed(GgufType::string, raw(~uint64_t{0}))); }),
               "a.u32: expected a length of at most"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.set("a.u32", GgufWriter::array(GgufType::f64, uint64_t{1} << 61, ""));
                 }),
                 "a.u32: expected at most"));
  CHECK(contains(fault_with([](GgufWriter& f) {
                   f.set("a.u32", GgufWriter::array(GgufType::string, uint64_t{1} << 58, ""));
                 }),
                 "a.u32: expected at most"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.set("a.u32", GgufWriter::array(GgufType::array, 1, "")); }),
                 "a.u32: expected an array of plain values, found an array of arrays"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.set("a.yes", typed(GgufType::boolean, "\2")); }),
                 "a.yes: expected a bool of 0 or 1, found 2"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("general.alignment", 48); }),
                 "general.alignment: expected a power of two, found 48"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.u32("general.alignment", 0); }),
                 "general.alignment: expected an integer from 1"));
  CHECK(contains(fault_with([](GgufWriter& f) { f.text("general.alignment", "32"); }),
                 "general.alignment: expected an integer from 1 to 2147483648, found string"));
}

TEST_CASE("broken tensors are refused by name") {
  const auto with_tensor = [](const std::function<void(GgufTensorText&)>& spoil) {
    return fault_with([&](GgufWriter& file) { spoil(file.tensors[0]); });
  };
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.name = ""; }), "tensor 0: name: expected 1 to 4096"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.name = "q"; }),
                 "tensor \"q\": expected a name that appears once"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.dimensions = {}; }),
                 "expected 1 to 4 dimensions, found 0"));
  CHECK(contains(with_tensor([](GgufTensorText& t) {
                   t.dimensions = {3, 2, 1, 1, 1};
                 }),
                 "tensor \"w\": expected 1 to 4 dimensions, found 5"));
  CHECK(contains(with_tensor([](GgufTensorText& t) {
                   t.dimensions = {3, 0};
                 }),
                 "tensor \"w\": expected dimensions of at least 1, found 0"));
  CHECK(contains(with_tensor([](GgufTensorText& t) {
                   t.dimensions = {uint64_t{1} << 32, uint64_t{1} << 32};
                 }),
                 "tensor \"w\": expected fewer than 2^63 elements"));
  CHECK(contains(with_tensor([](GgufTensorText& t) {
                   t.dimensions = {uint64_t{1} << 31, uint64_t{1} << 31};
                 }),
                 "tensor \"w\": expected fewer than 2^63 bytes"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = kQ8; }),
                 "tensor \"w\": expected a multiple of 32 columns in Q8_0, found 3"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.offset = 8; }),
                 "tensor \"w\": expected an offset that is a multiple of 32, found 8"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.offset = ~uint64_t{31}; }),
                 "tensor \"w\": expected 24 bytes at offset"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.offset = 64; }), "found data of 66 bytes"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.offset = 32; }), "expected an offset of at least"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 16; }), "found IQ2_XXS"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 17; }), "found IQ2_XS"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 18; }), "found IQ3_XXS"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 19; }), "found IQ1_S"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 29; }), "found IQ1_M"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 40; }), "found NVFP4"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 1000; }),
                 "tensor \"w\": expected one of the types F32, F16, BF16, Q8_0"));
  CHECK(contains(with_tensor([](GgufTensorText& t) { t.type = 1000; }), "found type 1000"));
}

TEST_CASE("typed access refuses other types and ranges by key") {
  using M = GgufMetadata;
  CHECK(metadata_fault([](const M& m) { m.integer("none", 0, 1); }) ==
        "crafted.gguf: none: expected a value, found none");
  CHECK(contains(metadata_fault([](const M& m) { m.integer("a.i64", 0, 9); }),
                 "a.i64: expected an integer from 0 to 9, found -1"));
  CHECK(contains(metadata_fault([](const M& m) { m.integer("a.u32", 0, 6); }),
                 "a.u32: expected an integer from 0 to 6, found 7"));
  CHECK(contains(metadata_fault([](const M& m) { m.integer("a.f32", 0, 6); }), "found f32"));
  CHECK(contains(metadata_fault([](const M& m) { m.integer("a.integers", 0, 6); }), "found an array of i32"));
  CHECK(contains(metadata_fault([](const M& m) { m.text("a.u32", 6); }),
                 "a.u32: expected a string, found u32"));
  CHECK(contains(metadata_fault([](const M& m) { m.text("general.architecture", 4); }),
                 "general.architecture: expected at most 4 bytes, found 5"));
  CHECK(contains(metadata_fault([](const M& m) { m.optional_boolean("a.u8"); }),
                 "a.u8: expected a bool, found u8"));
  CHECK(contains(metadata_fault([](const M& m) { m.number("a.texts", 0, 1); }), "found an array of string"));
  CHECK(contains(metadata_fault([](const M& m) { m.number("a.f64", 1, 2); }),
                 "a.f64: expected a number from 1 to 2, found 0.25"));
  CHECK(contains(metadata_fault([](const M& m) { m.texts("a.numbers"); }), "expected an array of string"));
  CHECK(contains(metadata_fault([](const M& m) { m.numbers("a.integers"); }), "expected an array of f32"));
  CHECK(contains(metadata_fault([](const M& m) { m.integers("a.u32", 0, 9); }),
                 "expected an array of integers"));
  CHECK(contains(metadata_fault([](const M& m) { m.integers("a.integers", 5, 9); }), "from 5 to 9, found 4"));

  GgufWriter file = small();
  file.integers("a.integers", {4, 3});
  file.text("general.architecture", "\xff");
  file.f32("a.f32", std::nanf(""));
  const std::string content = file.file();
  const GgufPart part = parse_gguf(std::as_bytes(std::span(content)), "crafted.gguf");
  CHECK(contains(refusal([&] { part.metadata.uniform_integer("a.integers", 0, 9); }),
                 "a.integers: expected the same integer for all layers, found 4 and 3"));
  CHECK(contains(refusal([&] { part.metadata.text("general.architecture", 9); }), "expected text in UTF-8"));
  CHECK(contains(refusal([&] { part.metadata.number("a.f32", 0, 1); }), "expected a number from 0 to 1"));
}

TEST_CASE("the parts of a model are read together, from the first on") {
  const Folder folder;
  const auto part = [&](size_t number, size_t count, const std::string& tensor) {
    GgufWriter file;
    file.set("split.no", typed(GgufType::u16, raw(static_cast<uint16_t>(number))));
    file.set("split.count", typed(GgufType::u16, raw(static_cast<uint16_t>(count))));
    file.set("split.tensors.count", typed(GgufType::i32, raw(int32_t{2})));
    if (number == 0) file.text("general.architecture", "llama");
    file.tensors.push_back({tensor, {4}, kF32, floats(4, static_cast<float>(number)), {}});
    return file;
  };
  const std::string first = folder / "m-00001-of-00002.gguf";
  const std::string second = folder / "m-00002-of-00002.gguf";
  const auto fault = [&] { return refusal([&] { GgufFile::open(first); }); };
  write_file(first, part(0, 2, "a").file());
  CHECK(contains(fault(), second));  // is not there
  write_file(second, part(1, 2, "b").file());
  const GgufFile file = GgufFile::open(first);
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.path() == first);
  CHECK(file.metadata().text("general.architecture", 9) == "llama");
  CHECK(file.find("c") == nullptr);
  std::vector<float> values(4);
  read_floats(*file.find("b"), 0, values);
  CHECK(values == std::vector<float>{1, 2, 3, 4});

  CHECK(contains(refusal([&] { GgufFile::open(second); }), "split.no: expected 0: the first part, found 1"));
  write_file(folder / "other.gguf", part(0, 2, "a").file());
  CHECK(contains(refusal([&] { GgufFile::open(folder / "other.gguf"); }),
                 "file name: expected to end in \"-00001-of-00002.gguf\" as the first of 2 parts does"));
  write_file(second, part(1, 2, "a").file());
  CHECK(contains(fault(), "tensor \"a\": expected a name that appears once, found it in two parts"));
  write_file(second, part(1, 3, "b").file());
  CHECK(contains(fault(), "split.count: expected an integer from 2 to 2, found 3"));
  write_file(second, part(0, 2, "b").file());
  CHECK(contains(fault(), "split.no: expected an integer from 1 to 1, found 0"));
  GgufWriter three = part(0, 2, "a");
  three.set("split.tensors.count", typed(GgufType::i32, raw(int32_t{3})));
  write_file(first, three.file());
  write_file(second, part(1, 2, "b").file());
  CHECK(contains(fault(), "split.tensors.count: expected an integer from 2 to 2, found 3"));
  three.set("split.count", typed(GgufType::u16, raw(uint16_t{2000})));
  write_file(first, three.file());
  CHECK(contains(fault(), "split.count: expected an integer from 0 to 1000, found 2000"));
}
