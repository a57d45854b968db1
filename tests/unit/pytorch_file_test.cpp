// The reader of pytorch_model.bin on files made here, among them ones that would harm other readers.
#include "gguf-like-format/pytorch/pytorch_file.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace tessera;

namespace {

template <class Number>
std::string bytes_of(Number number) {
  std::string text(sizeof number, '\0');
  std::memcpy(text.data(), &number, sizeof number);
  return text;
}

struct ZipEntry {
  std::string name;
  std::string content;
  uint16_t method = 0;
  uint16_t flags = 0;
  uint32_t stated_bytes = 0;  // instead of the content's, where it is not 0
  uint32_t offset_change = 0;
};

// An archive as torch.save lays it out; wide: with the records of files beyond 4 GB.
std::string zip(const std::vector<ZipEntry>& entries, bool wide = false) {
  std::string file, directory;
  for (const ZipEntry& entry : entries) {
    const auto bytes = static_cast<uint32_t>(entry.content.size());
    const uint32_t stated = entry.stated_bytes != 0 ? entry.stated_bytes : bytes;
    const auto name_bytes = static_cast<uint16_t>(entry.name.size());
    const uint32_t offset = static_cast<uint32_t>(file.size()) + entry.offset_change;
    const std::string extra = wide ? bytes_of<uint16_t>(1) + bytes_of<uint16_t>(24) +
                                         bytes_of<uint64_t>(stated) + bytes_of<uint64_t>(stated) +
                                         bytes_of<uint64_t>(offset)
                                   : "";
    const std::string middle = bytes_of(entry.flags) + bytes_of(entry.method) + std::string(8, '\0');
    file += "PK\x03\x04" + std::string(2, '\0') + middle + bytes_of(stated) + bytes_of(stated) +
            bytes_of(name_bytes) + bytes_of<uint16_t>(3) + entry.name + "pad" + entry.content;
    directory += "PK\x01\x02" + std::string(4, '\0') + middle + bytes_of(wide ? ~uint32_t{0} : stated) +
                 bytes_of(wide ? ~uint32_t{0} : stated) + bytes_of(name_bytes) +
                 bytes_of(static_cast<uint16_t>(extra.size())) + std::string(10, '\0') +
                 bytes_of(wide ? ~uint32_t{0} : offset) + entry.name + extra;
  }
  const uint64_t begin = file.size(), count = entries.size();
  file += directory;
  if (wide) {
    const uint64_t record = file.size();
    file += "PK\x06\x06" + bytes_of<uint64_t>(44) + std::string(12, '\0') + bytes_of(count) +
            bytes_of(count) + bytes_of<uint64_t>(directory.size()) + bytes_of(begin);
    file += "PK\x06\x07" + std::string(4, '\0') + bytes_of(record) + bytes_of<uint32_t>(1);
  }
  const auto short_count = static_cast<uint16_t>(count);
  return file + "PK\x05\x06" + std::string(4, '\0') + bytes_of(short_count) + bytes_of(short_count) +
         bytes_of(static_cast<uint32_t>(directory.size())) + bytes_of(static_cast<uint32_t>(begin)) +
         std::string(2, '\0');
}

std::string text(const std::string& content) {
  return "X" + bytes_of(static_cast<uint32_t>(content.size())) + content;
}
std::string integer(int32_t value) { return "J" + bytes_of(value); }
std::string tuple(const std::string& items) { return "(" + items + "t"; }
std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}

struct TensorFields {
  std::string storage_type = "FloatStorage";
  std::string storage_module = "torch";
  std::string key = "0";
  std::string offset = integer(0);
  std::string shape = tuple(integer(2) + integer(3));
  std::string strides = tuple(integer(3) + integer(1));
  std::string elements = integer(6);
  std::string kind = "storage";
};

std::string tensor(const TensorFields& fields = {}) {
  const std::string storage = tuple(text(fields.kind) + global(fields.storage_module, fields.storage_type) +
                                    text(fields.key) + text("cpu") + fields.elements) +
                              "Q";
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple(storage + fields.offset + fields.shape + fields.strides + "\x89" +
               global("collections", "OrderedDict") + ")R") +
         "R";
}

std::string pickle(const std::string& content) { return "\x80\x02" + content + "."; }
std::string dictionary(const std::string& items) { return pickle("}(" + items + "u"); }
const std::string kOne = dictionary(text("a") + tensor());

const std::string kNumbers = [] {
  std::string numbers;
  for (int i = 0; i < 6; ++i) numbers += bytes_of(static_cast<float>(i));
  return numbers;
}();

std::string archive(const std::string& data, bool wide = false) {
  return zip({{"m/data.pkl", data}, {"m/byteorder", "little"}, {"m/data/0", kNumbers}, {"m/version", "3\n"}},
             wide);
}

std::vector<CheckpointTensor> parse(const std::string& bytes) {
  return parse_pytorch(std::as_bytes(std::span(bytes)), "f.bin");
}

std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const FileError& error) {
    return error.what();
  }
  return "read";
}

std::vector<float> values(const CheckpointTensor& tensor) {
  std::vector<float> found(static_cast<size_t>(tensor.elements()));
  read_floats(tensor, 0, found);
  return found;
}

}  // namespace

TEST_CASE("a tensor is a view of the archive's bytes") {
  for (const bool wide : {false, true}) {
    const std::string file = archive(kOne, wide);
    const std::vector<CheckpointTensor> tensors = parse(file);
    REQUIRE(tensors.size() == 1);
    CHECK(tensors[0].name == "a");
    CHECK(tensors[0].shape == std::vector<uint64_t>{2, 3});
    CHECK(values(tensors[0]) == std::vector<float>{0, 1, 2, 3, 4, 5});
    CHECK(reinterpret_cast<const char*>(tensors[0].bytes.data()) >= file.data());
    CHECK(reinterpret_cast<const char*>(tensors[0].bytes.data()) < file.data() + file.size());
  }
}

TEST_CASE("a view in another order is read as it is meant") {
  TensorFields turned;
  turned.shape = tuple(integer(3) + integer(2));
  turned.strides = tuple(integer(1) + integer(3));
  CHECK(values(parse(archive(dictionary(text("a") + tensor(turned))))[0]) ==
        std::vector<float>{0, 3, 1, 4, 2, 5});
  TensorFields part;
  part.offset = integer(1);
  part.shape = tuple(integer(2) + integer(2));
  CHECK(values(parse(archive(dictionary(text("a") + tensor(part))))[0]) == std::vector<float>{1, 2, 4, 5});
}

TEST_CASE("numbers of any size that a pickle has") {
  TensorFields fields;
  fields.elements = std::string("\x8a\x01\x06");
  fields.offset = std::string("K\0", 2);
  fields.shape = "K\x02M" + bytes_of<uint16_t>(3) + "\x86";
  fields.strides = std::string("\x8a\x02\x03\0", 4) + "K\x01\x86";
  CHECK(values(parse(archive(dictionary(text("a") + tensor(fields))))[0]) ==
        std::vector<float>{0, 1, 2, 3, 4, 5});
  fields.offset = std::string("\x8a\x01\xff");  // -1
  CHECK(refusal(archive(dictionary(text("a") + tensor(fields)))).find("at least 0, found -1") !=
        std::string::npos);
}

TEST_CASE("pickles that do more than name tensors are refused by name") {
  const auto refused = [](const std::string& content) { return refusal(archive(pickle(content))); };
  const std::pair<std::string, const char*> cases[] = {
      {global("os", "system") + tuple(text("true")) + "R", "only names that tensors need, found os.system"},
      {global("builtins", "eval") + tuple(text("1")) + "R", "found builtins.eval"},
      {global("torch", "load") + ")R", "found torch.load"},
      {global("torch._utils", "_rebuild_sparse_tensor") + ")R", "found torch._utils._rebuild_sparse_tensor"},
      {global("torch", "ComplexFloatStorage"), "found torch.ComplexFloatStorage"},
      {text("posix") + text("system") + "\x93", "found posix.system"},
      {global("a\x1b[2J", "b"), "found a\\x1b[2J.b"},
      {"(" + text("x") + "ios\nsystem\n", "found INST"},
      {"(" + global("collections", "OrderedDict") + "o", "found OBJ"},
      {global("collections", "OrderedDict") + ")\x81", "found NEWOBJ"},
      {std::string("\x82\x01"), "found EXT1"},
      {"Pid\n", "found PERSID"},
      {global("torch", "FloatStorage") + ")R", "expected a function, found torch.FloatStorage"},
      {global("collections", "OrderedDict") + tuple(text("x")) + "R", "an empty OrderedDict"},
      {"}Nb", "expected a dictionary, found None"},
      {"\xff", "found step 0xff"},
  };
  for (const auto& each : cases) {
    const auto& content = each.first;
    const auto& expected = each.second;
    CAPTURE(expected);
    const std::string found = refused(content);
    CAPTURE(found);
    CHECK(found.find(expected) != std::string::npos);
    CHECK(found.find("f.bin: data.pkl: byte ") == 0);
  }
}

TEST_CASE("pickles that are broken or of no use") {
  const std::pair<std::string, const char*> cases[] = {
      {"", "expected 1 more bytes, found 0"},
      {"\x80\x09.", "protocol 5 or older, found 9"},
      {std::string("\x80\x02}"), "expected 1 more bytes, found 0"},
      {pickle("X" + bytes_of(~uint32_t{0}) + "ab"), "expected 4294967295 more bytes, found 3"},
      {pickle("\x95" + bytes_of(~uint64_t{0})), "a frame within"},
      {pickle("h\x07"), "a remembered value, found number 7"},
      {pickle("0"), "only steps"},
      {pickle("R"), "a value on the stack, found none"},
      {pickle("(R"), "a value on the stack, found none"},
      {pickle("}(" + text("a") + "Ns"), "a value on the stack"},
      {pickle("t"), "a mark on the stack"},
      {pickle("q\x01"), "a value on the stack"},
      {pickle("}("), "end: expected one value"},
      {pickle("NN"), "end: expected one value, found 2"},
      {pickle("]"), "a dictionary of tensors, found a list"},
      {dictionary(text("a") + "N"), "tensor a: expected a tensor, found None"},
      {dictionary("N" + tensor()), "name of a tensor"},
      {dictionary(text("") + tensor()), "name of a tensor"},
      {dictionary(text("a") + tensor() + text("a") + tensor()), "one of this name, found two"},
      {pickle("}(" + text("a") + "u"), "pairs of key and value, found 1"},
      {pickle("\x8a\x09" + std::string(9, 'x')), "at most 64 bits"},
      {pickle("cos"), "the end of a line"},
      {dictionary(text("a") + global("torch._utils", "_rebuild_tensor_v2") + ")R"),
       "6 values that make a tensor, found 0"},
      {dictionary(text("a") + global("torch._utils", "_rebuild_parameter") + tuple("NNN") + "R"),
       "content of a parameter"},
      {dictionary(text("a") + tuple(text("storage")) + "Q"), "5 values that name a storage, found 1"},
  };
  for (const auto& each : cases) {
    const auto& data = each.first;
    const auto& expected = each.second;
    CAPTURE(expected);
    const std::string found = refusal(archive(data));
    CAPTURE(found);
    CHECK(found.find(expected) != std::string::npos);
  }
}

TEST_CASE("tensors that do not fit their storage are refused") {
  const auto with = [](const std::function<void(TensorFields&)>& change) {
    TensorFields fields;
    change(fields);
    return refusal(archive(dictionary(text("a") + tensor(fields))));
  };
  const auto refuses = [&](const char* expected, const std::function<void(TensorFields&)>& change) {
    const std::string found = with(change);
    CAPTURE(found);
    CAPTURE(expected);
    CHECK(found.find(expected) != std::string::npos);
  };
  const std::string large = "\x8a\x08" + bytes_of<int64_t>(int64_t{1} << 62);
  refuses("storage: expected a file of the archive, found 1", [](auto& f) { f.key = "1"; });
  refuses("found ../../etc", [](auto& f) { f.key = "../../etc"; });
  refuses("storage: expected 7 elements of 4 bytes, found 24 bytes",
          [](auto& f) { f.elements = integer(7); });
  refuses("storage: expected", [&](auto& f) { f.elements = large; });
  refuses("elements of a storage of at least 0, found -6", [](auto& f) { f.elements = integer(-6); });
  refuses("below 6, the end of its storage, found 6", [](auto& f) { f.offset = integer(1); });
  refuses("below 6, the end of its storage", [&](auto& f) { f.offset = large; });
  refuses("offset of a tensor of at least 0", [](auto& f) { f.offset = integer(-1); });
  refuses("shape of at least 0", [](auto& f) { f.shape = tuple(integer(-2) + integer(3)); });
  refuses("at most the 6 elements of its storage", [](auto& f) { f.shape = tuple(integer(3) + integer(3)); });
  refuses("at most the 6 elements of its storage", [&](auto& f) {
    f.shape = tuple(large + integer(1));
    f.strides = tuple(integer(0) + integer(0));
  });
  refuses("strides: expected a view of its storage", [&](auto& f) { f.strides = tuple(large + large); });
  refuses("strides of at least 0", [](auto& f) { f.strides = tuple(integer(-3) + integer(1)); });
  refuses("2 strides, found 1", [](auto& f) { f.strides = tuple(integer(1)); });
  refuses("at most 8 values as shape", [](auto& f) {
    std::string ones;
    for (int i = 0; i < 9; ++i) ones += integer(1);
    f.shape = f.strides = tuple(ones);
  });
  refuses("type: expected", [](auto& f) {
    f.storage_type = "ShortStorage";
    f.elements = integer(12);
  });
  refuses("expected a storage, found \"module\"", [](auto& f) { f.kind = "module"; });
  refuses("expected a type of storages, found OrderedDict", [](auto& f) {
    f.storage_module = "collections";
    f.storage_type = "OrderedDict";
  });
}

TEST_CASE("many views cannot take more memory than the file") {
  TensorFields turned;
  turned.shape = tuple(integer(3) + integer(2));
  turned.strides = tuple(integer(1) + integer(3));
  std::string items = text("0") + tensor(turned) + "q\x01";
  for (int i = 1; i < 3000; ++i) items += text(std::to_string(i)) + "h\x01";
  CHECK(refusal(archive(dictionary(items))).find("views that copy no more than the file has") !=
        std::string::npos);
}

TEST_CASE("deeply nested values end as any others") {
  std::string content(1'000'000, '\x85');
  CHECK(refusal(archive(pickle("N" + content))).find("a dictionary of tensors, found a tuple") !=
        std::string::npos);
  CHECK(refusal(archive(pickle(std::string(1'000'000, '(')))).find("one value") != std::string::npos);
}

TEST_CASE("archives that are broken are refused") {
  const std::string good = archive(kOne);
  const auto entries = [](const std::function<void(std::vector<ZipEntry>&)>& change) {
    std::vector<ZipEntry> list = {{"m/data.pkl", kOne}, {"m/byteorder", "little"}, {"m/data/0", kNumbers}};
    change(list);
    return refusal(zip(list));
  };
  const auto refuses = [](const std::string& found, const char* expected) {
    CAPTURE(found);
    CAPTURE(expected);
    CHECK(found.find(expected) != std::string::npos);
  };
  CHECK(entries([](auto&) {}) == "read");
  refuses(refusal(""), "no zip archive");
  refuses(refusal("{\"a\": 1}"), "no zip archive");
  refuses(refusal("\x80\x02\x8a\nl\xfc\x9c"), "found the older one");
  refuses(refusal(good.substr(0, good.size() - 1)), "cut off");
  refuses(refusal(good.substr(0, good.size() / 2)), "cut off");
  refuses(entries([](auto& e) { e[2].method = 8; }),
          "m/data/0: expected a stored file, found a compressed one");
  refuses(entries([](auto& e) { e[0].flags = 1; }), "encrypted");
  refuses(entries([](auto& e) { e[2].stated_bytes = 1 << 30; }), "a file before the directory");
  refuses(entries([](auto& e) { e[2].offset_change = 5; }), "its header, found something else");
  refuses(entries([](auto& e) { e[2].offset_change = 1 << 30; }), "within the");
  refuses(entries([](auto& e) { e.push_back(e[2]); }), "one file of this name, found two");
  refuses(entries([](auto& e) { e.push_back({"n/data.pkl", kOne}); }), "expected one data.pkl, found two");
  refuses(entries([](auto& e) { e[0].name = "m/other.pkl"; }), "expected FOLDER/data.pkl");
  refuses(entries([](auto& e) { e[1].content = "big"; }), "byteorder: expected little");
  refuses(entries([](auto& e) { e.push_back({"m/constants.pkl", "x"}); }), "TorchScript");
  // Any byte changed, or cut anywhere: an error or the tensors, nothing else.
  std::mt19937 random(11);
  for (size_t round = 0; round < 4000; ++round) {
    std::string changed = archive(kOne, round % 2 == 1);
    changed[random() % changed.size()] = static_cast<char>(random());
    if (round % 3 == 0) changed.resize(random() % changed.size());
    const std::string line = refusal(changed);
    CHECK(line.find('\n') == std::string::npos);
  }
}
