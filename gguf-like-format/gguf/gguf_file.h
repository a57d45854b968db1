// Reads GGUF files of versions 2 and 3, little-endian, whole or in parts: where their tensors lie and what
// their metadata says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/gguf/blocks.h"
#include "gguf-like-format/gguf/gguf_metadata.h"

namespace tessera {

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> shape;  // 1 to 4 dimensions, columns last: the reverse of the order in the file
  const GgufBlockFormat* format = nullptr;
  std::span<const std::byte> bytes;  // whole blocks; may be unaligned

  uint64_t elements() const;
};

struct GgufPart {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the order of the file
};

// One file whose bytes are already in memory and outlive the result. file names it in errors. Every length
// and count is compared with the bytes that are left before anything is allocated for it. Throws FileError
// for anything malformed and for tensors of types that blocks.h does not decode.
GgufPart parse_gguf(std::span<const std::byte> bytes, const std::string& file);

class GgufFile {
 public:
  ~GgufFile();
  GgufFile(GgufFile&&) noexcept;
  GgufFile& operator=(GgufFile&&) noexcept;
  // Maps one file, or all parts of a model when path is the first: NAME-00001-of-0000N.gguf. Throws
  // FileError.
  static GgufFile open(const std::string& path);

  const std::string& path() const;
  const GgufMetadata& metadata() const;  // of the first part
  std::span<const GgufTensor> tensors() const;
  const GgufTensor* find(std::string_view name) const;  // nullptr when absent

 private:
  struct State;
  explicit GgufFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Elements first … first + out.size() - 1 in f32, in row-major order. Throws FileError for a range outside
// the tensor.
void read_floats(const GgufTensor& tensor, uint64_t first, std::span<float> out);

// The end of the name of one part, counted from 1: "-00001-of-00003.gguf".
std::string gguf_part_suffix(uint64_t part, uint64_t parts);

}  // namespace tessera
