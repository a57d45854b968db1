// The pickle inside a torch.save archive: a dictionary of tensors. A pickle is a program for a stack machine
// that can call anything; this reader knows the steps that build such a dictionary and the few names that
// they need, and refuses all others by name. Nothing of the file is ever run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/file_error.h"

namespace tessera {

// A tensor as a view of a storage. Numbers are the file's; none is checked against another.
struct PickledTensor {
  std::string_view name;
  std::string_view storage_type;  // "FloatStorage"
  std::string_view storage_key;   // the storage's file in the archive
  uint64_t storage_elements = 0;
  uint64_t offset = 0;  // elements of the storage before the first
  std::vector<uint64_t> shape;
  std::vector<uint64_t> strides;  // elements; as many as dimensions
};

// The tensors in the order of the file; texts point into bytes. where names the file and the part of it in
// errors. Throws FileError.
std::vector<PickledTensor> read_tensor_pickle(std::span<const std::byte> bytes, const std::string& where);

}  // namespace tessera
