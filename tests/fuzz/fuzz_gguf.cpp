// Fuzzes the GGUF reader with the tokenizer that its metadata holds: whatever loads must decode its tensors
// and encode text.
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/gguf/gguf_file.h"

namespace {

void check(const tessera::FileError& error) {
  for (const char c : std::string_view(error.what()))
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) __builtin_trap();
}

void read(std::span<const std::byte> bytes) {
  const tessera::GgufPart part = tessera::parse_gguf(bytes, "fuzz");
  size_t held = 0;
  for (const tessera::GgufTensor& tensor : part.tensors) {
    held += tensor.bytes.size();
    std::vector<float> values(static_cast<size_t>(std::min<uint64_t>(tensor.elements(), 1000)));
    tessera::read_floats(tensor, tensor.elements() - values.size(), values);
  }
  if (held > bytes.size()) __builtin_trap();  // no tensor overlaps another
  const tessera::Tokenizer tokenizer = tessera::Tokenizer::from_gguf(part.metadata);
  for (const uint32_t id : tokenizer.encode("the cat's 12 hats <s>\n\xff\xe4\xb8\x96", true))
    if (id >= tokenizer.vocabulary()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    read(std::as_bytes(std::span(data, size)));
  } catch (const tessera::FileError& error) {
    check(error);
  }
  return 0;
}
