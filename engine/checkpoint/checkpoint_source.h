// A checkpoint as importing sees it, whatever its files look like: settings, tensors, tokenizer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/checkpoint/packed_matrix.h"
#include "engine/models/model_graph.h"
#include "engine/models/tensor_source.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

struct SourceTensor {
  std::string name;
  std::vector<uint64_t> shape;
  std::string_view type;            // as the checkpoint's format calls it, "BF16" or "Q4_K"
  std::optional<Scheme> precision;  // f32, f16 or bf16, which holds every value; nothing where none does
  unsigned code_bits = 0;           // of a weight in a quantized type, about; 0 for floats

  uint64_t elements() const;
};

// Constant once opened; all functions but the destructor may be called from several threads.
class CheckpointSource {
 public:
  virtual ~CheckpointSource() = default;
  virtual const std::string& path() const = 0;
  // Hyperparameters, chat settings and generation defaults; quantization and tokenizer are left empty.
  virtual const ModelHeader& header() const = 0;
  // A line for everything that is read as something else than the files say and is harmless.
  virtual std::span<const std::string> notes() const { return {}; }
  virtual const Tokenizer& tokenizer() const = 0;
  virtual std::span<const SourceTensor> tensors() const = 0;
  const SourceTensor* find(std::string_view name) const;  // nullptr when absent
  // Where this checkpoint holds a tensor of the model; unless overridden, where the family's Hugging Face
  // checkpoints do. Names a tensor that may be missing.
  virtual TensorSource source_of(const ExpectedTensor& tensor) const { return tensor.source; }
  // Elements first ... first + out.size() - 1 of one of tensors(), in row-major order. Throws FileError for a
  // type that cannot be read as floats and for a range outside the tensor.
  virtual void read(const SourceTensor& tensor, uint64_t first, std::span<float> out) const = 0;
  // How the codes of one of tensors() are to be read; nothing where it is no matrix of codes. May read all of
  // the tensor's levels. Throws FileError where they make no sense.
  virtual std::optional<PackedFormat> packed_format(const SourceTensor&) const { return std::nullopt; }
  // Rows first_row ... first_row + rows - 1 of a tensor that has a packed format; their values by its formula
  // in f32 are what read gives. Throws FileError for a range outside the tensor.
  virtual PackedRows read_packed(const SourceTensor& tensor, uint64_t first_row, uint64_t rows) const;
  // The same without the codes, for a look at a matrix's levels before it is read.
  virtual PackedRows read_levels(const SourceTensor& tensor, uint64_t first_row, uint64_t rows) const {
    return read_packed(tensor, first_row, rows);
  }
  // XXH64 of one of tensors() as it is stored.
  virtual uint64_t hash(const SourceTensor& tensor, uint64_t seed) const = 0;
};

// Whether path is something that open_checkpoint is meant for: a folder, or a file that one of the formats
// recognizes.
bool is_checkpoint(const std::string& path);

// Opens what lies at path, by the first format that recognizes it: the rows of a table in
// checkpoint_source.cpp. Throws FileError naming the file and field for anything missing, broken or not
// supported.
std::unique_ptr<CheckpointSource> open_checkpoint(const std::string& path);

// Every file whose bytes decide what open_checkpoint(path) gives, in a fixed order; of a folder, all that
// could. Reads names only. Throws FileError where path is no checkpoint at first sight.
std::vector<std::string> checkpoint_files(const std::string& path);

}  // namespace tessera
