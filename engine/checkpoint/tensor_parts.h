// The tensors of a checkpoint by name, and the checks of those that packed matrices are made of.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gguf-like-format/safetensors/safetensors.h"

namespace tessera {

// A view: tensors have to outlive it. Errors name the checkpoint's path, the tensor, what was expected and
// what was found.
class TensorParts {
 public:
  TensorParts(std::string path, std::span<const CheckpointTensor> tensors);

  const std::string& path() const { return path_; }
  std::span<const CheckpointTensor> tensors() const { return tensors_; }
  const CheckpointTensor* find(const std::string& name) const;  // nullptr when absent
  // Throws FileError when absent; beside is the tensor that makes it necessary.
  const CheckpointTensor& require(const std::string& name, const std::string& beside) const;
  // What stands before the suffix in the names of all tensors that end with it.
  std::vector<std::string> modules(std::string_view suffix) const;

  void check_type(const CheckpointTensor& tensor, std::initializer_list<CheckpointType> allowed) const;
  void check_shape(const CheckpointTensor& tensor, std::initializer_list<uint64_t> expected) const;
  // Two dimensions, neither of them 0.
  void check_matrix(const CheckpointTensor& tensor) const;
  // F32, F16 or BF16, all of it finite.
  void check_levels(const CheckpointTensor& tensor) const;
  // The value of a tensor with one element of type U8, I32 or I64 that is not negative.
  uint64_t scalar(const CheckpointTensor& tensor) const;
  // Two sizes of at least 1 and less than 2^31 from a tensor [2] of I32 or I64.
  std::pair<uint64_t, uint64_t> matrix_shape(const CheckpointTensor& tensor) const;
  [[noreturn]] void refuse(const CheckpointTensor& tensor, std::string_view expected,
                           std::string_view found) const;

 private:
  std::string path_;
  std::span<const CheckpointTensor> tensors_;
  std::unordered_map<std::string_view, const CheckpointTensor*> index_;
};

// Element i of a tensor of I64, I32, I8 or U8.
int64_t integer_at(const CheckpointTensor& tensor, uint64_t i);

// Element i of a tensor of F32, F16 or BF16.
float float_at(const CheckpointTensor& tensor, uint64_t i);

}  // namespace tessera
