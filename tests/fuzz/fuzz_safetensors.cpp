// Fuzzes the safetensors parser. An input that begins with '{' is the text of a header, which is given its
// length and 256 bytes of data; any other input is a whole file.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/safetensors/safetensors.h"

namespace {

void read(const std::string& file) {
  try {
    const std::span<const std::byte> bytes = std::as_bytes(std::span(file));
    size_t covered = 0;
    for (const tessera::CheckpointTensor& tensor : tessera::parse_safetensors(bytes, "fuzz")) {
      covered += tensor.bytes.size();
      if (tensor.type > tessera::CheckpointType::bf16) continue;
      std::vector<float> values(static_cast<size_t>(std::min<uint64_t>(tensor.elements(), 4096)));
      tessera::read_floats(tensor, tensor.elements() - values.size(), values);
    }
    uint64_t header = 0;
    std::memcpy(&header, file.data(), 8);
    if (covered != file.size() - 8 - header)
      __builtin_trap();  // the parser must ensure that tensors cover all data
  } catch (const tessera::FileError& error) {
    for (const char c : std::string_view(error.what()))
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  if (input.empty() || input[0] != '{') {
    read(input);
    return 0;
  }
  const uint64_t length = input.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  read(file + input + std::string(256, 'd'));
  return 0;
}
