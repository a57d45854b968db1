// The packed formats of Hugging Face folders: what a folder's quantization_config says, and the matrices that
// it describes.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/checkpoint/packed_reader.h"
#include "engine/checkpoint/tensor_parts.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

// The settings of one folder, read and checked.
class PackedLayout {
 public:
  virtual ~PackedLayout() = default;
  // All matrices that lie packed among the tensors, which have to outlive them. Throws FileError for one that
  // is not as the settings say, or that misses a part.
  virtual std::vector<PackedTensor> find(const TensorParts& tensors) const = 0;
  // Whether a tensor says something that is of no use to the weights, such as the scale of an activation.
  virtual bool is_unused(std::string_view) const { return false; }
};

// Readers of settings, one for each format; fields is the quantization_config. All throw FileError naming the
// setting for what they do not know.
std::unique_ptr<PackedLayout> read_gptq_layout(const JsonFields& fields);
std::unique_ptr<PackedLayout> read_awq_layout(const JsonFields& fields);
std::unique_ptr<PackedLayout> read_bitsandbytes_layout(const JsonFields& fields);
std::unique_ptr<PackedLayout> read_compressed_tensors_layout(const JsonFields& fields);
std::unique_ptr<PackedLayout> read_fp8_layout(const JsonFields& fields);
std::unique_ptr<PackedLayout> read_hqq_layout(const JsonFields& fields);

// bits or an equal name of it. Throws FileError unless it is one of `allowed`.
unsigned bits_setting(const JsonFields& fields, std::string_view field, std::span<const unsigned> allowed);

// Columns of a group: a positive number, or -1 for all of a row, which is 0 here.
uint64_t group_setting(const JsonFields& fields, std::string_view field);

// How the weights of a folder are packed.
struct FolderQuantization {
  std::unique_ptr<PackedLayout> layout;
  std::string settings;  // its text, so that the same bytes under other settings are not taken for the same
};

// quantization_config of config.json; nothing where it has none. Throws FileError.
std::optional<FolderQuantization> read_quantization_config(const std::string& folder);

// quantize_config.json or quant_config.json, which checkpoints from before had, for a folder with tensors
// that only packed matrices have; nothing without such tensors. Throws FileError, also where there is no such
// file.
std::optional<FolderQuantization> read_quantization_file(const std::string& folder,
                                                         const TensorParts& tensors);

// The packed matrices among the tensors. Throws FileError where there are none, and for a matrix that is
// there twice.
std::vector<PackedTensor> find_packed(const PackedLayout& layout, const TensorParts& tensors);

}  // namespace tessera
