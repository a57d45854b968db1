// Fuzzes the .tess reader. The first byte chooses what the rest is: a whole file, a file whose size and
// header hash are corrected first (random bytes would never pass these checks), or the text of a header
// around which a file is made.
#include <xxhash.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/tess/tess_file.h"
#include "gguf-like-format/tile_layout.h"

namespace {

constexpr size_t kPrefix = 64;

struct alignas(64) Line {
  std::array<char, 64> bytes;
};

template <typename T>
void put(std::string& file, size_t offset, T value) {
  std::memcpy(file.data() + offset, &value, sizeof(T));
}

void repair(std::string& file) {
  if (file.size() < kPrefix) return;
  std::memcpy(file.data(), "TESSERA\0\1\0\0\0\0\0\0\0", 16);
  uint64_t header = 0;
  std::memcpy(&header, file.data() + 16, 8);
  put<uint64_t>(file, 24, file.size());
  if (header <= file.size() - kPrefix)
    put<uint64_t>(file, 32, XXH64(file.data() + kPrefix, static_cast<size_t>(header), 0));
  std::memset(file.data() + 40, 0, 24);
}

// Eight pages of tensors follow the header.
std::string around(std::string_view header) {
  std::string file(kPrefix, '\0');
  file += header;
  file.resize(tessera::tile::round_up(file.size(), tessera::kTessAlignment) + 8 * tessera::kTessAlignment,
              '\0');
  put<uint64_t>(file, 16, header.size());
  repair(file);
  return file;
}

void read(const std::string& file) {
  std::vector<Line> memory(file.size() / sizeof(Line) + 1);
  if (!file.empty()) std::memcpy(memory.data(), file.data(), file.size());
  try {
    const auto opened =
        tessera::TessFile::from_memory(std::as_bytes(std::span(memory)).first(file.size()), "fuzz");
    for (const tessera::StoredTensor& tensor : opened->tensors())
      if (opened->find(tensor.name) != &tensor) __builtin_trap();
    opened->verify();
  } catch (const tessera::FileError& error) {
    // An error must be one line without control characters.
    for (const char c : std::string_view(error.what()))
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == '{') {
    read(around("{" + input));
    return 0;
  }
  if (data[0] % 2 != 0) repair(input);
  read(input);
  return 0;
}
