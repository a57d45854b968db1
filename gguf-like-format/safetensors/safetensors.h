// Reads safetensors checkpoints, single or sharded, by their own rules: header of at most 100 MB that begins
// with '{', no duplicate keys, contiguous full coverage of the data.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/file_error.h"

namespace tessera {

// The floats that read_floats reads come first.
enum class CheckpointType : uint8_t { f32, f16, bf16, f8_e4m3, i64, i32, i8, u8 };

std::string_view type_name(CheckpointType type);  // as files have it, "BF16"

struct CheckpointTensor {
  std::string name;
  CheckpointType type = CheckpointType::f32;
  std::vector<uint64_t> shape;
  std::span<const std::byte> bytes;  // valid while the Checkpoint lives; may be unaligned

  uint64_t elements() const;
};

// The tensors of one .safetensors file whose bytes are already in memory and outlive the result. file names
// it in errors. Throws FileError.
std::vector<CheckpointTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& file);

class Checkpoint {
 public:
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  // A folder with model.safetensors or model.safetensors.index.json and its shards, or one .safetensors file.
  static Checkpoint open(const std::string& path);  // throws FileError
  std::span<const CheckpointTensor> tensors() const;
  const CheckpointTensor* find(std::string_view name) const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Elements first … first + out.size() - 1 as floats (f32, f16 and bf16 tensors only). Throws FileError for
// another type or a range outside the tensor.
void read_floats(const CheckpointTensor& tensor, uint64_t first, std::span<float> out);

}  // namespace tessera
