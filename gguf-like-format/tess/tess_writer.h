// Writes a .tess file atomically: a temporary file beside the target, space reserved first, checked writes,
// fsync, rename, fsync of the folder. The temporary file is removed when anything fails or a signal ends the
// process.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/file_target.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/scheme.h"

namespace tessera {

// What a tensor will be, known before its bytes are.
struct PlannedTensor {
  std::string name;
  Scheme scheme = Scheme::f32;
  std::vector<uint64_t> shape;
};

class TessWriter {
 public:
  // Plans the layout and reserves the space. header_text limits are those of the reader. Throws FileError.
  TessWriter(const std::string& path, const ModelHeader& header, std::vector<PlannedTensor> tensors);
  // The same for a target that outlives the writer; name stands for the file in errors.
  TessWriter(FileTarget& target, const std::string& name, const ModelHeader& header,
             std::vector<PlannedTensor> tensors);
  ~TessWriter();  // removes the temporary file unless finish() succeeded
  TessWriter(const TessWriter&) = delete;
  TessWriter& operator=(const TessWriter&) = delete;

  uint64_t file_bytes() const;
  // Writes the next planned tensor, whole, in the planned order. bytes.size() must be stored_bytes of the
  // plan.
  void write(std::span<const std::byte> bytes);
  void finish();  // header with hashes, then the target's commit; throws FileError

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same file as an image in anonymous memory, for weights that are made up rather than read: tensors are
// filled where they lie. Filling may be done by several threads, everything else by one.
class TessImage {
 public:
  // Plans the layout and takes the address space, zeroed; pages come when they are filled. name stands for
  // the file in errors. Throws FileError.
  TessImage(const std::string& name, const ModelHeader& header, std::vector<PlannedTensor> tensors);
  ~TessImage();
  TessImage(TessImage&&) noexcept;
  TessImage& operator=(TessImage&&) noexcept;

  std::span<std::byte> tensor(size_t index);  // of the plan
  void finish();  // hashes and header: after this TessFile::from_memory accepts bytes()
  std::span<const std::byte> bytes() const;  // aligned to 4096, valid while the image lives

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera
