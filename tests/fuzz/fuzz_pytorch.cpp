// Fuzzes the reader of pytorch_model.bin. A first byte of 0 makes the rest an archive as it is; any other
// makes it the pickle of a valid archive with two storages.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/pytorch/pytorch_file.h"

namespace {

void read(std::span<const std::byte> bytes) {
  for (const tessera::CheckpointTensor& tensor : tessera::parse_pytorch(bytes, "fuzz")) {
    uint64_t elements = 1;
    for (const uint64_t dimension : tensor.shape) elements *= dimension;
    if (elements != tensor.elements()) __builtin_trap();
    if (tensor.bytes.size() > bytes.size()) __builtin_trap();
    uint64_t sum = 0;
    for (const std::byte byte : tensor.bytes) sum += std::to_integer<uint64_t>(byte);
    if (sum > 255 * tensor.bytes.size()) __builtin_trap();  // reads every byte
  }
}

template <class Number>
void append(std::string& text, Number number) {
  text.append(reinterpret_cast<const char*>(&number), sizeof number);
}

// The pickle in an archive with data/0 of 64 bytes and data/1 of none.
std::string archive(std::string_view pickle) {
  const std::string numbers(64, 'n');
  std::string file, directory;
  uint16_t count = 0;
  const auto add = [&](std::string_view name, std::string_view content) {
    const auto bytes = static_cast<uint32_t>(content.size());
    const auto offset = static_cast<uint32_t>(file.size());
    const auto length = static_cast<uint16_t>(name.size());
    file += "PK\x03\x04" + std::string(14, '\0');
    append(file, bytes), append(file, bytes), append(file, length), append(file, uint16_t{0});
    file.append(name).append(content);
    directory += "PK\x01\x02" + std::string(16, '\0');
    append(directory, bytes), append(directory, bytes), append(directory, length);
    directory += std::string(12, '\0');
    append(directory, offset);
    directory.append(name);
    ++count;
  };
  add("m/data.pkl", pickle);
  add("m/data/0", numbers);
  add("m/data/1", "");
  const auto begin = static_cast<uint32_t>(file.size());
  file += directory + "PK\x05\x06" + std::string(4, '\0');
  append(file, count), append(file, count), append(file, static_cast<uint32_t>(directory.size())),
      append(file, begin);
  return file + std::string(2, '\0');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data + 1), size - 1);
  const std::string file = data[0] == 0 ? rest : archive(rest);
  try {
    read(std::as_bytes(std::span(file)));
  } catch (const tessera::FileError& error) {
    for (const char c : std::string_view(error.what()))
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) __builtin_trap();
  }
  return 0;
}
