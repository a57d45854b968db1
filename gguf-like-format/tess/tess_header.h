// The JSON header of a .tess file: to and from ModelHeader and the tensor table, with every field checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

inline constexpr size_t kTessPrefixBytes = 64;  // the fixed fields before the JSON
inline constexpr size_t kMostTessHeaderBytes = size_t{64} << 20;

// What a model may be at most. Generous, and small enough that no product of a few of them overflows.
namespace header_limits {
inline constexpr uint64_t kMostVocabulary = uint64_t{1} << 24;
inline constexpr uint64_t kMostHidden = uint64_t{1} << 20;
inline constexpr uint64_t kMostLayers = 4096;
inline constexpr uint64_t kMostHeads = 4096;
inline constexpr uint64_t kMostHeadDim = 1024;
inline constexpr uint64_t kHeadDimStep = 8;
inline constexpr uint64_t kMostFfn = uint64_t{1} << 24;
inline constexpr uint64_t kMostContext = uint64_t{1} << 24;
inline constexpr double kLeastNormEpsilon = std::numeric_limits<float>::min();  // used in single precision
inline constexpr double kMostNormEpsilon = 1.0;
inline constexpr double kLeastRopeTheta = 1.0;
inline constexpr double kMostRopeTheta = 1e15;
inline constexpr double kMostFactor = 1e6;                 // of RoPE scaling
inline constexpr size_t kMostTextBytes = size_t{1} << 20;  // chat template
inline constexpr size_t kMostSettingsBytes = size_t{32}
                                             << 20;  // tokenizer: tens of thousands of added tokens
inline constexpr size_t kMostStopTokens = 1024;
}  // namespace header_limits

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

// Checks that every hyperparameter lies in the range the format allows and agrees with the others. prefix
// names the object in errors. Throws FileError naming file and field.
void check_hyperparameters(const Hyperparameters& hyperparameters, const std::string& file,
                           const std::string& prefix);

}  // namespace tessera
