// The JSON header of a .tess file: to and from ModelHeader and the tensor table, with every field checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/hyperparameter_fields.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

inline constexpr size_t kTessPrefixBytes = 64;  // the fixed fields before the JSON
inline constexpr size_t kMostTessHeaderBytes = size_t{64} << 20;

// One line of the tensor table. offset counts from the start of the file.
struct TensorRecord {
  std::string name;
  Scheme scheme = Scheme::f32;
  std::vector<uint64_t> shape;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t xxh64 = 0;
};

struct TessHeader {
  ModelHeader model;
  std::vector<TensorRecord> tensors;
};

// The header as JSON text. Its length does not depend on the hashes. Throws FileError naming file for text
// that is not UTF-8.
std::string write_tess_header(const ModelHeader& model, std::span<const TensorRecord> tensors,
                              const std::string& file);

// Parses and checks everything that can be checked without the rest of the file: types, ranges, names,
// stored sizes, and hyperparameters against each other. Throws FileError naming file and field.
TessHeader read_tess_header(std::string_view text, const std::string& file);

}  // namespace tessera
